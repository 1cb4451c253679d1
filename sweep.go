package tenancy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"time"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// farAhead bounds how many tenants are put aside in a sweep. Each has an open
// pool, with no connections.
const farAhead = 1024

// sweep is one run of [Each].
type sweep struct {
	p   *Plugin
	db  *gorm.DB
	opt EachOptions
	fn  func(ctx context.Context, id string, db *gorm.DB) error

	stop context.Context // ends when no turn begins any more
	halt func()

	mu       sync.Mutex
	room     sync.Cond // busy or aside have become less, or stop has ended
	out      EachError
	busy     int // slots that are taken
	aside    int // turns that are put aside
	shares   map[*server]*share
	panicked any
}

// share is what a sweep may do on one server.
type share struct {
	most, busy int
	next       []chan struct{} // turns that are put aside, in their order
}

// inTurn runs one turn after the other.
func (s *sweep) inTurn(ctx context.Context, ids iter.Seq2[string, error]) {
	for id, err := range ids {
		if !s.goesOn(ctx, err) {
			return
		}
		if s.skips(ctx, id) {
			continue
		}
		began := time.Now()
		_, end, err := s.begin(ctx, id)
		if err == nil {
			err = s.work(ctx, id, end)
		}
		s.ended(id, err, time.Since(began))
	}
}

// work is one turn's fn, and its mark. end is called also when it panics.
func (s *sweep) work(ctx context.Context, id string, end func()) error {
	if err := s.call(ctx, id, end); err != nil {
		return err
	}
	return s.mark(ctx, id)
}

func (s *sweep) call(ctx context.Context, id string, end func()) error {
	defer end()
	sc := scope.From(ctx)
	sc.Sweep = true
	return With(scope.With(ctx, sc), s.db, id, func(ctx context.Context, db *gorm.DB) error {
		return s.fn(ctx, id, db)
	})
}

// atOnce runs turns side by side, each on a goroutine of its own. A turn holds
// one of Parallel slots from when it is opened. One whose server has its share
// at work is put aside, without a slot, and gets slot and share from the next
// turn that ends there.
func (s *sweep) atOnce(ctx context.Context, ids iter.Seq2[string, error]) {
	s.stop, s.halt = context.WithCancel(ctx)
	defer s.halt()
	defer context.AfterFunc(s.stop, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.room.Broadcast()
	})()
	var turns sync.WaitGroup
	read := false
	defer func() {
		if !read { // ids has panicked
			s.halt()
		}
		turns.Wait()
	}()
	for id, err := range ids {
		if !s.goesOn(ctx, err) || !s.slot(ctx) {
			break
		}
		turns.Go(func() { s.turn(ctx, id) })
	}
	read = true
}

// slot waits for a slot.
func (s *sweep) slot(ctx context.Context) bool {
	s.mu.Lock()
	for s.stop.Err() == nil && (s.busy >= s.opt.Parallel || s.aside >= farAhead) {
		s.room.Wait()
	}
	s.busy++
	s.mu.Unlock()
	return s.goesOn(ctx, nil)
}

// turn is one turn, which holds a slot.
func (s *sweep) turn(ctx context.Context, id string) {
	over := false
	defer func() { s.catch(recover(), id, over) }()
	if s.skips(ctx, id) {
		s.leave(nil)
		over = true
		return
	}
	began := time.Now()
	server, end, err := s.begin(ctx, id)
	switch {
	case err != nil:
		defer s.leave(nil)
		if s.goesOn(ctx, nil) || ctx.Err() == nil {
			s.ended(id, err, time.Since(began))
		}
	case !s.enter(server):
		end()
		s.goesOn(ctx, nil) // notes why it had no turn
	default:
		defer s.leave(server)
		if !s.goesOn(ctx, nil) {
			end()
			break
		}
		began = time.Now()
		err = s.work(ctx, id, end)
		s.ended(id, err, time.Since(began))
	}
	over = true
}

// enter takes a part of the sweep's share in server, or waits for one without
// a slot. It returns false, without a slot, when the sweep is at its end.
func (s *sweep) enter(server *server) bool {
	s.mu.Lock()
	sh := s.share(server)
	if sh.busy < sh.most {
		sh.busy++
		s.mu.Unlock()
		return true
	}
	next := make(chan struct{}, 1)
	sh.next = append(sh.next, next)
	s.aside++
	s.busy--
	s.room.Broadcast()
	s.mu.Unlock()
	select {
	case <-next:
		return true
	case <-s.stop.Done():
		return false
	}
}

// leave gives the slot, and the part of the share if there is one, to who was
// put aside first, or back.
func (s *sweep) leave(server *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if server != nil {
		sh := s.share(server)
		if len(sh.next) > 0 {
			sh.next[0] <- struct{}{}
			sh.next = sh.next[1:]
			s.aside--
			s.room.Broadcast()
			return
		}
		sh.busy--
	}
	s.busy--
	s.room.Broadcast()
}

// begin opens the tenant's pool for its turn, which end ends.
func (s *sweep) begin(ctx context.Context, id string) (*server, func(), error) {
	if err := checkID("each", id); err != nil {
		return nil, nil, err
	}
	e, err := s.p.cache.beginTurn(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	return e.pool.(*pool).dialer.server, func() { s.p.cache.endTurn(e) }, nil
}

// share returns the sweep's share in server.
func (s *sweep) share(server *server) *share {
	sh, ok := s.shares[server]
	if !ok {
		sh = &share{most: s.opt.PerServer}
		if sh.most <= 0 {
			sh.most = max(1, server.size/4)
		}
		s.shares[server] = sh
	}
	return sh
}

// goesOn reports whether a turn may begin, and notes why not.
func (s *sweep) goesOn(ctx context.Context, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && ctx.Err() != nil {
		err = causeOf(ctx)
	}
	if err != nil && s.out.Cause == nil {
		s.out.Cause = err
	}
	on := s.out.Cause == nil && s.panicked == nil && !(s.opt.StopOnError && len(s.out.Failed) > 0)
	if !on {
		s.halt()
	}
	return on
}

// ended notes the outcome of a turn.
func (s *sweep) ended(id string, err error, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.out.Done = append(s.out.Done, id)
	} else {
		s.out.Failed = append(s.out.Failed, TenantError{Tenant: id, Err: err})
		if s.opt.StopOnError {
			s.halt()
		}
	}
	if s.opt.Progress != nil {
		s.opt.Progress(EachProgress{Tenant: id, Err: err, Took: took,
			Done: len(s.out.Done), Failed: len(s.out.Failed), Skipped: s.out.Skipped})
	}
}

// catch keeps a panic for the caller's goroutine, where it can be recovered. A
// turn that is not over and has not panicked was ended by runtime.Goexit:
// testing.T.FailNow does that.
func (s *sweep) catch(panicked any, id string, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case panicked != nil:
		s.halt()
		if s.panicked == nil {
			s.panicked = fmt.Sprintf("%v\n\n%s", panicked, debug.Stack())
		}
	case !over:
		s.halt()
		s.out.Failed = append(s.out.Failed, TenantError{Tenant: id, Err: errGoexit})
		if s.out.Cause == nil {
			s.out.Cause = errGoexit
		}
	}
}

var errGoexit = errors.New("fn ended its goroutine")
