package tenancy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fakePool is a tenantPool without a database.
type fakePool struct {
	o     *fakeOpener
	id    string
	place any
	held  chan struct{} // not nil: gone only when it is closed

	mu      sync.Mutex
	retires int
	ended   chan struct{}
}

func (p *fakePool) retire() {
	p.mu.Lock()
	p.retires++
	first := p.retires == 1
	p.mu.Unlock()
	p.o.retired(p, first)
	if !first {
		return
	}
	if p.held == nil {
		close(p.ended)
		return
	}
	go func() {
		<-p.held
		close(p.ended)
	}()
}

func (p *fakePool) gone() <-chan struct{} { return p.ended }
func (p *fakePool) narrow(bool)           {}

func (p *fakePool) places() []any {
	if p.place == nil {
		return nil
	}
	return []any{p.place}
}
func (p *fakePool) conns() int {
	if p.held == nil {
		return 0
	}
	return 3
}

func (p *fakePool) isRetired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retires > 0
}

// fakeOpener opens fakePools and watches over the rules of their retirement.
type fakeOpener struct {
	cache *cache
	fail  func(format string, args ...any)
	// before is called in open, and may block or give an error.
	before func(ctx context.Context, id string) error
	// make, if set, changes a new pool.
	make func(*fakePool)
	// check is recheck.
	check func(ctx context.Context, id string) (Cause, error)

	mu     sync.Mutex
	opens  map[string]int
	checks map[string]int
	pools  []*fakePool
}

func (o *fakeOpener) open(ctx context.Context, id string, at func(step)) (tenantPool, error) {
	o.mu.Lock()
	o.opens[id]++
	o.mu.Unlock()
	if o.before != nil {
		if err := o.before(ctx, id); err != nil {
			return nil, err
		}
	}
	p := &fakePool{o: o, id: id, ended: make(chan struct{})}
	if o.make != nil {
		o.make(p)
	}
	o.mu.Lock()
	o.pools = append(o.pools, p)
	o.mu.Unlock()
	return p, nil
}

func (o *fakeOpener) recheck(ctx context.Context, id string, _ tenantPool) (Cause, error) {
	o.mu.Lock()
	o.checks[id]++
	o.mu.Unlock()
	if o.check == nil {
		return "", nil
	}
	return o.check(ctx, id)
}

// retired is called by each retire: the entry must be out of the map, and
// nobody may hold a lease.
func (o *fakeOpener) retired(p *fakePool, first bool) {
	if !first {
		o.fail("the pool of %s was retired again", p.id)
	}
	o.cache.mu.Lock()
	defer o.cache.mu.Unlock()
	for e := range o.cache.live {
		if e.pool != tenantPool(p) {
			continue
		}
		if e.refs != 0 {
			o.fail("the pool of %s was retired with %d leases", p.id, e.refs)
		}
		if cur, ok := o.cache.lru.Peek(e.id); ok && cur == e {
			o.fail("the pool of %s was retired while it is in the map", p.id)
		}
	}
}

func (o *fakeOpener) opened(id string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opens[id]
}

func (o *fakeOpener) checked(id string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.checks[id]
}

// events collects what the observer is told.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (r *events) observe(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, e)
}

func (r *events) count(kind EventKind, cause Cause) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.all {
		if e.Kind == kind && e.Cause == cause {
			n++
		}
	}
	return n
}

type cacheTest struct {
	*cache
	t *testing.T
	o *fakeOpener
	r *events
}

func newCacheTest(t *testing.T, limits Limits) *cacheTest {
	cfg := Config{Pools: limits}.withDefaults()
	o := &fakeOpener{opens: map[string]int{}, checks: map[string]int{}, fail: t.Errorf}
	r := &events{}
	c := newCache(o, r.observe, cfg.Pools, cfg.Recheck)
	o.cache = c
	return &cacheTest{cache: c, t: t, o: o, r: r}
}

// inBubble runs test in a synctest bubble, on a cache that is closed after.
func inBubble(t *testing.T, limits Limits, test func(t *testing.T, c *cacheTest)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCacheTest(t, limits)
		defer func() { // also after a failure, or the bubble would not end
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			if err := c.close(ctx); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
		test(t, c)
	})
}

func (c *cacheTest) lease(id string) *entry {
	c.t.Helper()
	e, err := c.acquire(c.t.Context(), id, false)
	if err != nil {
		c.t.Fatalf("acquire %s: %v", id, err)
	}
	return e
}

// touch leases and releases.
func (c *cacheTest) touch(ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		c.release(c.lease(id))
	}
}

func (c *cacheTest) open() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Keys()
}

// later is acquire in a goroutine.
func (c *cacheTest) later(ctx context.Context, id string) <-chan result {
	out := make(chan result, 1)
	go func() {
		e, err := c.acquire(ctx, id, false)
		out <- result{e, err}
	}()
	return out
}

type result struct {
	e   *entry
	err error
}

func TestCacheOpensOnceInBurst(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		gate := make(chan struct{})
		c.o.before = func(context.Context, string) error { <-gate; return nil }
		var waiting []<-chan result
		for range 50 {
			waiting = append(waiting, c.later(t.Context(), "a"))
		}
		synctest.Wait()
		close(gate)
		var first *entry
		for _, w := range waiting {
			r := <-w
			require.NoError(t, r.err)
			if first == nil {
				first = r.e
			}
			require.Same(t, first, r.e)
			c.release(r.e)
		}
		require.Equal(t, 1, c.o.opened("a"))
	})
}

func TestCacheCancelledLeaderSpoilsNothing(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		gate := make(chan struct{})
		c.o.before = func(ctx context.Context, _ string) error {
			select {
			case <-gate:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		leader := c.later(ctx, "a")
		synctest.Wait()
		follower := c.later(t.Context(), "a")
		synctest.Wait()
		cancel()
		require.ErrorIs(t, (<-leader).err, context.Canceled)
		close(gate)
		r := <-follower
		require.NoError(t, r.err)
		c.release(r.e)
		require.Equal(t, 1, c.o.opened("a"))
	})
}

func TestCacheResolverThatNeverReturns(t *testing.T) {
	inBubble(t, Limits{MaxPools: 2}, func(t *testing.T, c *cacheTest) {
		gate := make(chan struct{})
		c.o.before = func(_ context.Context, id string) error {
			if id == "stuck" {
				<-gate
			}
			return nil
		}
		start := time.Now()
		patient := c.later(t.Context(), "stuck")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hasty := c.later(ctx, "stuck")
		synctest.Wait()

		c.touch("a", "b", "c", "a") // not slower, and not beyond the bound
		require.Zero(t, time.Since(start))

		require.ErrorIs(t, (<-hasty).err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		err := (<-patient).err
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, "stuck")
		require.Equal(t, openTimeout, time.Since(start))
		_, err = c.acquire(t.Context(), "stuck", false)
		require.ErrorIs(t, err, ErrUnavailable)
		require.Equal(t, openTimeout, time.Since(start), "it is known to be late by now")

		close(gate)
		synctest.Wait()
		c.touch("stuck")
		require.Equal(t, 1, c.o.opened("stuck"), "what came late is used")
	})
}

func TestCacheFailureIsKeptForAMoment(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		bad := errors.New("down")
		c.o.before = func(context.Context, string) error { return bad }
		fails := func() {
			t.Helper()
			_, err := c.acquire(t.Context(), "a", false)
			require.ErrorIs(t, err, bad)
			require.Empty(t, c.open())
		}
		fails()
		time.Sleep(absentTime / 3)
		fails()
		require.Equal(t, 1, c.o.opened("a"), "who comes at once gets the same answer")
		time.Sleep(absentTime)
		fails()
		require.Equal(t, 2, c.o.opened("a"))
		c.o.before = nil
		require.False(t, c.evict("a", CauseEvicted), "but it is forgotten")
		c.touch("a")
		require.Equal(t, 3, c.o.opened("a"))
	})
}

func TestCacheRemembersFewFailures(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		c.o.before = func(context.Context, string) error { return ErrTenantNotFound }
		for i := range manyAbsent + 100 {
			_, err := c.acquire(t.Context(), fmt.Sprint(i), false)
			require.ErrorIs(t, err, ErrTenantNotFound)
		}
		require.Equal(t, manyAbsent, c.absent.lru.Len())
		c.recheckAll() // the resolver's news may have been missed
		require.Zero(t, c.absent.lru.Len())
	})
}

func TestOpenerPanicIsAnError(t *testing.T) {
	o := &dbOpener{resolver: ResolverFunc(func(context.Context, string) (Database, error) { panic("ouch") })}
	_, err := o.open(t.Context(), "a", func(step) {})
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "ouch")
	cause, err := o.recheck(t.Context(), "a", &pool{})
	require.ErrorIs(t, err, ErrUnavailable)
	require.Empty(t, cause, "what is open stays")
}

func TestCacheBound(t *testing.T) {
	inBubble(t, Limits{MaxPools: 2}, func(t *testing.T, c *cacheTest) {
		c.touch("a", "b", "a", "c")
		require.Equal(t, []string{"a", "c"}, c.open(), "b was used least recently")

		// Leased ones stay, whatever comes. Those beyond half of the room
		// don't count, so the others keep their pools too.
		a, cc := c.lease("a"), c.lease("c")
		d := c.lease("d")
		synctest.Wait()
		require.ElementsMatch(t, []string{"a", "c", "d"}, c.open())
		require.Equal(t, 1, c.r.count(EventEvicted, CauseCapacity))
		c.release(a)
		synctest.Wait()
		require.ElementsMatch(t, []string{"a", "c", "d"}, c.open())
		c.release(cc)
		synctest.Wait()
		require.ElementsMatch(t, []string{"c", "d"}, c.open())
		require.True(t, a.pool.(*fakePool).isRetired())
		c.release(d)
		synctest.Wait()
		require.ElementsMatch(t, []string{"c", "d"}, c.open())
		require.Equal(t, 2, c.r.count(EventEvicted, CauseCapacity))
	})
}

// A pool that is evicted while leased serves that lease, and the next caller
// gets another.
func TestCacheEvictLeased(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		old := c.lease("a")
		require.True(t, c.evict("a", CauseEvicted))
		require.False(t, c.evict("a", CauseEvicted))
		fresh := c.lease("a")
		require.NotSame(t, old, fresh)
		synctest.Wait()
		require.False(t, old.pool.(*fakePool).isRetired())
		c.evictEntry(old, CauseChanged) // an old recheck, say: not the fresh one
		c.release(old)
		synctest.Wait()
		require.True(t, old.pool.(*fakePool).isRetired())
		require.False(t, fresh.pool.(*fakePool).isRetired())
		require.Equal(t, []string{"a"}, c.open())
		c.release(fresh)
	})
}

func TestCacheEvictWhileOpening(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		gate := make(chan struct{}, 2)
		c.o.before = func(context.Context, string) error { <-gate; return nil }
		w1, w2 := c.later(t.Context(), "a"), c.later(t.Context(), "a")
		synctest.Wait()
		require.True(t, c.evict("a", CauseChanged))
		gate <- struct{}{} // the stale opening
		synctest.Wait()
		require.Equal(t, 2, c.o.opened("a"), "opened afresh")
		gate <- struct{}{}
		r1, r2 := <-w1, <-w2
		require.NoError(t, r1.err)
		require.NoError(t, r2.err)
		require.Same(t, r1.e, r2.e)
		require.Same(t, c.o.pools[1], r1.e.pool)
		synctest.Wait()
		require.True(t, c.o.pools[0].isRetired())
		require.False(t, c.o.pools[1].isRetired())
		c.release(r1.e)
		c.release(r2.e)
	})
}

func TestCacheIdle(t *testing.T) {
	const idle = 8 * time.Minute
	inBubble(t, Limits{IdleTimeout: idle}, func(t *testing.T, c *cacheTest) {
		c.touch("a", "b")
		time.Sleep(idle / 2) // the bubble's clock
		c.touch("b")
		time.Sleep(idle/2 + idle/4)
		synctest.Wait()
		require.Equal(t, []string{"b"}, c.open())
		require.Equal(t, 1, c.r.count(EventEvicted, CauseIdle))
		time.Sleep(idle)
		synctest.Wait()
		require.Empty(t, c.open())
	})
}

// Who holds a lease for long ([Conn] for LISTEN, a resolver that hangs) must
// not keep the idle pools of others open.
func TestCacheIdleBehindLeased(t *testing.T) {
	const idle = 8 * time.Minute
	inBubble(t, Limits{IdleTimeout: idle}, func(t *testing.T, c *cacheTest) {
		long := c.lease("long")
		c.touch("a", "b")
		time.Sleep(2 * idle)
		synctest.Wait()
		require.Equal(t, []string{"long"}, c.open())
		c.release(long)
		time.Sleep(idle / 2)
		synctest.Wait()
		require.Equal(t, []string{"long"}, c.open(), "it was in use until now")
		time.Sleep(idle)
		synctest.Wait()
		require.Empty(t, c.open())
	})
}

func TestCacheRecheck(t *testing.T) {
	for name, tc := range map[string]struct {
		cause Cause
		err   error
	}{
		"same":    {},
		"changed": {cause: CauseChanged},
		"gone":    {cause: CauseGone},
		"error":   {err: errors.New("catalog down")},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
				c.o.check = func(context.Context, string) (Cause, error) { return tc.cause, tc.err }
				c.touch("a")
				time.Sleep(30 * time.Second)
				c.touch("a")
				synctest.Wait()
				require.Zero(t, c.o.checked("a"))
				time.Sleep(time.Minute)
				c.touch("a", "a", "a")
				synctest.Wait()
				require.Equal(t, 1, c.o.checked("a"))
				require.Equal(t, tc.cause != "", c.o.pools[0].isRetired())
				if tc.cause != "" {
					require.Equal(t, 1, c.r.count(EventEvicted, tc.cause))
				}
				if tc.err != nil {
					require.Equal(t, 1, c.r.count(EventFailed, ""))
					time.Sleep(time.Minute + 15*time.Second)
					c.touch("a")
					synctest.Wait()
					require.Equal(t, 2, c.o.checked("a"), "asked again")
				}
			})
		})
	}
}

// A recheck that hangs neither delays statements nor blocks retirement by
// Evict, and only one runs.
func TestCacheRecheckHangs(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		gate := make(chan struct{})
		c.o.check = func(context.Context, string) (Cause, error) { <-gate; return CauseChanged, nil }
		c.touch("a")
		time.Sleep(2 * time.Minute)
		c.touch("a", "a")
		time.Sleep(5 * time.Minute)
		c.touch("a", "a")
		require.Equal(t, 1, c.o.checked("a"))
		c.evict("a", CauseEvicted)
		c.touch("a")
		close(gate) // an answer about the old entry
		synctest.Wait()
		require.True(t, c.o.pools[0].isRetired())
		require.False(t, c.o.pools[1].isRetired())
	})
}

// News that may have been missed is asked for even by who was being opened or
// rechecked at the time: its answer may be older.
func TestCacheRecheckAll(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		gate := make(chan struct{})
		c.o.before = func(_ context.Context, id string) error {
			if id == "opening" {
				<-gate
			}
			return nil
		}
		c.o.check = func(_ context.Context, id string) (Cause, error) {
			if id == "rechecked" && c.o.checked(id) == 1 {
				<-gate
			}
			return "", nil
		}
		c.touch("open", "rechecked")
		time.Sleep(2 * time.Minute)
		c.touch("rechecked")
		opening := c.later(t.Context(), "opening")
		c.touch("open")
		synctest.Wait()
		require.Equal(t, 1, c.o.checked("open"))
		c.recheckAll()
		close(gate)
		c.release((<-opening).e)
		synctest.Wait()
		c.touch("open", "rechecked", "opening")
		synctest.Wait()
		require.Equal(t, 2, c.o.checked("open"))
		require.Equal(t, 2, c.o.checked("rechecked"))
		require.Equal(t, 1, c.o.checked("opening"))
	})
}

func TestCacheClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCacheTest(t, Limits{})
		held := make(chan struct{})
		c.o.make = func(p *fakePool) {
			if p.id == "busy" {
				p.held = held
			}
		}
		c.touch("idle", "busy")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := c.close(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "busy")
		require.ErrorContains(t, err, "3 connections")
		_, err = c.acquire(t.Context(), "idle", false)
		require.ErrorIs(t, err, ErrClosed)

		done := make(chan error, 2)
		for range 2 {
			go func() { done <- c.close(t.Context()) }()
		}
		synctest.Wait()
		require.Empty(t, done, "it waits")
		close(held)
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		require.NoError(t, c.close(ctx), "even with a ctx that has ended")
		require.Equal(t, 2, c.r.count(EventEvicted, CauseClosed))
	})
}

func TestCacheCloseWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCacheTest(t, Limits{})
		gate := make(chan struct{})
		c.o.before = func(context.Context, string) error { <-gate; return nil }
		w := c.later(t.Context(), "a")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorContains(t, c.close(ctx), "tenant a: the resolver has not answered")
		close(gate)
		require.ErrorIs(t, (<-w).err, ErrClosed)
		require.NoError(t, c.close(t.Context()))
		require.True(t, c.o.pools[0].isRetired())
	})
}

func TestCacheDrain(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		held := make(chan struct{})
		c.o.make = func(p *fakePool) {
			if p.id == "a" {
				p.held = held
			}
		}
		c.touch("a", "b")
		done := make(chan error, 1)
		go func() { done <- c.drain(t.Context(), "a") }()
		synctest.Wait()
		require.Empty(t, done)
		require.Equal(t, []string{"b"}, c.open())
		close(held)
		require.NoError(t, <-done)
		require.NoError(t, c.drain(t.Context(), "unknown"))
	})
}

func TestCacheTwoTenantsOneDatabase(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		c.o.make = func(p *fakePool) { p.place = "same" }
		c.touch("a")
		_, err := c.acquire(t.Context(), "b", false)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, "tenant a")
		synctest.Wait()
		require.Equal(t, 1, c.o.checked("a"), "a may be the one that moved away")
		require.Equal(t, []string{"a"}, c.open())
		require.True(t, c.o.pools[1].isRetired())

		// When a has gone, b may have it.
		c.evict("a", CauseEvicted)
		c.touch("b")
		require.False(t, c.o.pools[2].isRetired())
	})
}

func TestCacheHitDoesNotAllocate(t *testing.T) {
	c := newCacheTest(t, Limits{})
	defer func() { require.NoError(t, c.close(context.Background())) }()
	ctx := context.Background()
	c.touch("a")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		e, _ := c.acquire(ctx, "a", false)
		c.release(e)
	}))
}

// A turn that is given up while its pool is being opened leaves nothing behind.
func TestCacheTurnGivenUpWhileOpening(t *testing.T) {
	inBubble(t, Limits{MaxPools: 2}, func(t *testing.T, c *cacheTest) {
		c.o.before = func(context.Context, string) error { time.Sleep(time.Second); return nil }
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			_, err := c.cache.beginTurn(ctx, id)
			require.Error(t, err)
		}
		time.Sleep(time.Minute)
		require.Empty(t, c.open(), "pools of turns that never began")
	})
}

// fn of a sweep may drain its tenant: to remove it, say.
func TestCacheDrainInATurn(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		e, err := c.cache.beginTurn(t.Context(), "a")
		require.NoError(t, err)
		defer c.endTurn(e)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, c.drain(ctx, "a"))
	})
}

// A statement of a turn whose pool was evicted meanwhile opens no pool that
// stays.
func TestCacheStatementOfATurnAfterEvict(t *testing.T) {
	inBubble(t, Limits{MaxPools: 1}, func(t *testing.T, c *cacheTest) {
		c.touch("used")
		e, err := c.cache.beginTurn(t.Context(), "a")
		require.NoError(t, err)
		c.evict("a", CauseChanged)
		again, err := c.acquire(t.Context(), "a", true)
		require.NoError(t, err)
		c.release(again)
		c.endTurn(e)
		synctest.Wait()
		require.Equal(t, []string{"used"}, c.open())
	})
}

// News that comes while the resolver is asked makes its answer old.
func TestCacheNewsWhileOpeningFails(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, c *cacheTest) {
		fail := true
		c.o.before = func(context.Context, string) error {
			if fail {
				time.Sleep(time.Second)
				return errors.New("not found")
			}
			return nil
		}
		first := c.later(t.Context(), "a")
		synctest.Wait()
		fail = false
		c.recheckAll()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Error(t, (<-first).err)
		c.touch("a")
	})
}
