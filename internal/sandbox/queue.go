package sandbox

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// holder is who has the physical connection.
type holder struct {
	conn int             // number of the virtual connection
	what string          // in words
	tx   context.Context // of a transaction; nil for a statement
	pcs  []uintptr
}

// newHolder notes the caller's stack, up to what called into this package.
func newHolder(conn int, what string, tx context.Context) *holder {
	pcs := make([]uintptr, 64)
	return &holder{conn: conn, what: what, tx: tx, pcs: pcs[:runtime.Callers(2, pcs)]}
}

func (h *holder) String() string {
	return fmt.Sprintf("connection %d, which is in %s since:\n%s", h.conn, h.what, h.stack())
}

// own is how names of this package's functions begin, but for its tests.
const own = "github.com/gorm-tenancy/tenancy/internal/sandbox."

func (h *holder) stack() string {
	var b strings.Builder
	frames := runtime.CallersFrames(h.pcs)
	for {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, own) {
			fmt.Fprintf(&b, "\t%s\n\t\t%s:%d\n", f.Function, f.File, f.Line)
		}
		if !more {
			return b.String()
		}
	}
}

// queue hands the physical connection to one holder at a time, in the order in
// which they asked.
type queue struct {
	mu      sync.Mutex
	holder  *holder
	waiting []*waiter
}

type waiter struct {
	*holder
	turn chan struct{} // closed when it is the holder
}

// errWait is in the error of who has waited too long.
var errWait = errors.New("waited too long")

// acquire waits until h is the holder, at most for so long, or until ctx or end
// ends. Who gets no error has to call release.
func (q *queue) acquire(ctx, end context.Context, h *holder, wait time.Duration) error {
	q.mu.Lock()
	if q.holder == nil {
		q.holder = h
		q.mu.Unlock()
		return nil
	}
	w := &waiter{h, make(chan struct{})}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()

	limit := time.NewTimer(wait)
	defer limit.Stop()
	var err error
	select {
	case <-w.turn:
		return nil
	case <-end.Done():
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = fmt.Errorf("%w: %v", errWait, wait)
	}

	q.mu.Lock()
	defer q.mu.Unlock()
	at := slices.Index(q.waiting, w)
	if at < 0 { // its turn has come just now
		return nil
	}
	q.waiting = slices.Delete(q.waiting, at, at+1)
	if err == nil {
		return context.Cause(end)
	}
	return fmt.Errorf("sandbox: connection %d can't begin %s: %w, for %v"+
		"All connections of a sandbox are one. Inside of a transaction use its own *gorm.DB or *sql.Tx, the tx that its function was given. "+
		"For code that needs two connections at once give the test a database of its own (Env.Clone instead of Env.Tenant)",
		w.conn, w.what, err, q.holder)
}

// release makes who waits longest the holder.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.holder = nil
	if len(q.waiting) > 0 {
		w := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.holder = w.holder
		close(w.turn)
	}
}

// held returns the holder; nil if there is none.
func (q *queue) held() *holder {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.holder
}
