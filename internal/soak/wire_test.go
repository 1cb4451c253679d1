package soak

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// wire is the dialer of all connections of a test. It knows a session from a
// cancel request by the first bytes that are sent, counts the open sessions,
// and can hold back cancel requests, as a firewall or a slow network does.
type wire struct {
	mu       sync.Mutex
	sockets  map[*socket]struct{} // open ones, of either kind
	sessions map[string]int       // open ones, by server
	peak     map[string]int       // the most there were
	dialled  int                  // sessions, ever
	cancels  int                  // cancel requests, ever
	blocked  int                  // of these, held back now
	gate     chan struct{}        // closed when cancel requests may pass; nil: they may
	changed  chan struct{}        // closed when any of it changes, and made anew
}

func newWire() *wire {
	return &wire{sockets: map[*socket]struct{}{}, sessions: map[string]int{}, peak: map[string]int{},
		changed: make(chan struct{})}
}

// configure is for tenancypg.Engine.
func (w *wire) configure(cfg *pgx.ConnConfig) error {
	cfg.DialFunc = w.dial
	return nil
}

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: c, wire: w, server: addr, closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sockets[s] = struct{}{}
	return s, nil
}

// tellLocked wakes who waits in await.
func (w *wire) tellLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// block holds cancel requests back until the returned function is called.
func (w *wire) block() (open func()) {
	gate := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gate = gate
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.gate = nil
		close(gate)
	})
}

// await waits until ok, which is called with w locked.
func (w *wire) await(ctx context.Context, ok func() bool) error {
	for {
		w.mu.Lock()
		done, changed := ok(), w.changed
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// check fails if a socket is open, or if there ever were more sessions with a
// server than limit.
func (w *wire) check(t testing.TB, limit int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.sockets {
		t.Errorf("a socket to %s is still open", s.server)
	}
	for server, n := range w.peak {
		if n > limit {
			t.Errorf("%d sessions with %s, %d were allowed", n, server, limit)
		}
		t.Logf("%s: at most %d sessions at a time, %d in all, %d cancel requests", server, n, w.dialled, w.cancels)
	}
}

// socket is one of wire's connections. It is a session or a cancel request once
// something was written.
type socket struct {
	net.Conn
	wire    *wire
	server  string
	first   sync.Once
	session bool // guarded by wire.mu
	once    sync.Once
	closed  chan struct{}
}

// cancelRequest is the code of a CancelRequest ("Message Formats" in the
// manual).
const cancelRequest = 80877102

func (s *socket) Write(b []byte) (int, error) {
	var err error
	s.first.Do(func() { err = s.begin(b) })
	if err != nil {
		return 0, err
	}
	return s.Conn.Write(b)
}

func (s *socket) begin(b []byte) error {
	w := s.wire
	w.mu.Lock()
	if len(b) < 8 || binary.BigEndian.Uint32(b[4:]) != cancelRequest {
		s.session = true
		w.dialled++
		w.sessions[s.server]++
		w.peak[s.server] = max(w.peak[s.server], w.sessions[s.server])
		w.tellLocked()
		w.mu.Unlock()
		return nil
	}
	w.cancels++
	gate := w.gate
	if gate != nil {
		w.blocked++
	}
	w.tellLocked()
	w.mu.Unlock()
	if gate == nil {
		return nil
	}
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.blocked--
		w.tellLocked()
	}()
	// pgx bounds a cancel request at 15 s, by the socket's deadline, which
	// does not reach us here.
	limit := time.NewTimer(15 * time.Second)
	defer limit.Stop()
	select {
	case <-gate:
		return nil
	case <-limit.C:
		return errors.New("the cancel request was held back for too long")
	case <-s.closed:
		return net.ErrClosed
	}
}

func (s *socket) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() {
		close(s.closed)
		w := s.wire
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.sockets, s)
		if s.session {
			w.sessions[s.server]--
		}
		w.tellLocked()
	})
	return err
}
