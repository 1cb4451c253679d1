package tenancy

import (
	"context"
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

	mu       sync.Mutex
	out      EachError
	shares   map[*server]chan struct{} // full when a server has its share at work
	panicked any
}

// inTurn runs one turn after the other.
func (s *sweep) inTurn(ctx context.Context, ids iter.Seq2[string, error]) {
	for id, err := range ids {
		if !s.goesOn(ctx, err) {
			return
		}
		began := time.Now()
		_, end, err := s.begin(ctx, id)
		if err == nil {
			err = s.work(ctx, id, end)
		}
		s.ended(id, err, time.Since(began))
	}
}

// work is one turn's fn. end is called also when it panics.
func (s *sweep) work(ctx context.Context, id string, end func()) error {
	defer end()
	sc := scope.From(ctx)
	sc.Sweep = true
	return With(scope.With(ctx, sc), s.db, id, func(ctx context.Context, db *gorm.DB) error {
		return s.fn(ctx, id, db)
	})
}

// atOnce runs turns side by side.
func (s *sweep) atOnce(ctx context.Context, ids iter.Seq2[string, error]) {
	var (
		turns sync.WaitGroup
		ahead = make(chan struct{}, s.opt.Parallel+min(farAhead, 16*s.opt.Parallel))
		slots = make(chan struct{}, s.opt.Parallel)
	)
	defer turns.Wait()
	for id, err := range ids {
		if err == nil {
			select {
			case ahead <- struct{}{}:
			case <-ctx.Done():
			}
		}
		if !s.goesOn(ctx, err) {
			return
		}
		turns.Go(func() {
			defer func() { <-ahead }()
			defer s.catch()
			s.turn(ctx, id, slots)
		})
	}
}

func (s *sweep) turn(ctx context.Context, id string, slots chan struct{}) {
	began := time.Now()
	server, end, err := s.begin(ctx, id)
	if err != nil {
		if s.goesOn(ctx, nil) || ctx.Err() == nil {
			s.ended(id, err, time.Since(began))
		}
		return
	}
	release, ok := s.enter(ctx, s.share(server), slots)
	if !ok || !s.goesOn(ctx, nil) {
		release()
		end()
		return // it had no turn
	}
	defer release()
	began = time.Now()
	err = s.work(ctx, id, end)
	s.ended(id, err, time.Since(began))
}

// enter waits for a place in each of the channels.
func (s *sweep) enter(ctx context.Context, places ...chan struct{}) (leave func(), ok bool) {
	entered := 0
	leave = func() {
		for _, c := range places[:entered] {
			<-c
		}
	}
	for _, c := range places {
		select {
		case c <- struct{}{}:
			entered++
		case <-ctx.Done():
			return leave, false
		}
	}
	return leave, true
}

// begin opens the tenant's pool for its turn, which end ends.
func (s *sweep) begin(ctx context.Context, id string) (*server, func(), error) {
	if err := checkID("each", id); err != nil {
		return nil, nil, err
	}
	e, err := s.p.cache.lease(ctx, id, true, true)
	if err != nil {
		return nil, nil, err
	}
	return e.pool.(*pool).dialer.server, func() { s.p.cache.endTurn(e) }, nil
}

// share returns the places that the sweep has on server.
func (s *sweep) share(server *server) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.shares[server]
	if !ok {
		n := s.opt.PerServer
		if n <= 0 {
			n = max(1, server.size/4)
		}
		c = make(chan struct{}, n)
		s.shares[server] = c
	}
	return c
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
	return s.out.Cause == nil && s.panicked == nil && !(s.opt.StopOnError && len(s.out.Failed) > 0)
}

// ended notes the outcome of a turn.
func (s *sweep) ended(id string, err error, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.out.Done = append(s.out.Done, id)
	} else {
		s.out.Failed = append(s.out.Failed, TenantError{Tenant: id, Err: err})
	}
	if s.opt.Progress != nil {
		s.opt.Progress(EachProgress{Tenant: id, Err: err, Took: took, Done: len(s.out.Done), Failed: len(s.out.Failed)})
	}
}

// catch keeps a panic of fn for the caller's goroutine, where it can be
// recovered.
func (s *sweep) catch() {
	r := recover()
	if r == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.panicked == nil {
		s.panicked = fmt.Sprintf("%v\n\n%s", r, debug.Stack())
	}
}
