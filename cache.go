package tenancy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// tenantPool is what the cache keeps for a tenant. It is an interface so that
// the cache knows nothing of database/sql, and its rules can be tested without.
type tenantPool interface {
	// retire closes the pool: what was taken from it may finish, nothing new
	// is taken. It does not block.
	retire()
	// gone is closed when, after retire, the last physical connection is.
	gone() <-chan struct{}
	// conns is the number of physical connections. It does not block.
	conns() int
	// identity is equal for pools of the same database; nil when unknown.
	identity() any
}

// opener makes pools for the cache. Its methods may block, and must not panic.
type opener interface {
	open(ctx context.Context, id string) (tenantPool, error)
	// recheck reports why pool must go, or "" if it may stay.
	recheck(ctx context.Context, id string, pool tenantPool) (Cause, error)
}

// cache keeps the open pools, one per tenant, the most recently used ones.
//
// A call leases an entry, calls into database/sql and gives the lease back.
// Rows, Tx and Conn outlive the lease, because sql.DB.Close lets what is
// checked out finish and only refuses what comes new. An entry is retired only
// when it has left the map and has no lease, so nobody ever meets "sql:
// database is closed".
//
// Nothing slow happens under mu: no resolver, no dial, no Close, no Observer,
// no method of sql.DB.
type cache struct {
	opener  opener
	observe func(Event)
	max     int           // open pools
	idle    time.Duration // unused pools are retired after it
	recheck time.Duration // open pools are resolved again after it
	timeout time.Duration // of one opening or recheck
	start   time.Time
	stop    chan struct{}  // closed by close
	workers sync.WaitGroup // the sweeper

	mu       sync.Mutex
	lru      *simplelru.LRU[string, *entry] // what acquire finds
	byPlace  map[any]*entry                 // entries of lru by tenantPool.identity
	live     map[*entry]struct{}            // every entry that is not gone
	now      time.Duration                  // since start; set by the sweeper, so coarse
	news     uint64                         // calls of recheckAll
	sweeping bool
	closed   bool

	hits, misses, openedTotal, failedTotal uint64
	evicted                                map[Cause]uint64
}

// entry is one opening of one tenant's pool. A tenant that is opened again has
// another entry, so identity is compared by pointer, never by id.
type entry struct {
	id    string
	ready chan struct{} // closed when pool or err is set
	late  chan struct{} // closed when opening takes too long; it goes on
	gone  chan struct{} // closed when nothing is left of it
	pool  tenantPool    // written before ready is closed, read after
	err   error         // likewise

	// The rest is guarded by cache.mu.
	refs       int // leases, one of them the opener's own
	opened     bool
	retired    bool // out of the map
	finished   bool // somebody has taken it upon himself to retire its pool
	rechecking bool
	used       time.Duration
	checkAt    time.Duration
	held       *held  // made on demand; see pin
	news       uint64 // cache.news when the resolver was last asked
}

// errAgain is the err of an entry that was retired while it was being opened:
// what was resolved may be out of date, so it was never handed out.
var errAgain = errors.New("retired while opening")

func newCache(o opener, observe func(Event), limits Limits, recheck time.Duration) *cache {
	lru, err := simplelru.NewLRU[string, *entry](math.MaxInt, nil) // bounded by trim, which knows leases
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &cache{
		opener:  o,
		observe: observe,
		max:     limits.MaxPools,
		idle:    limits.IdleTimeout,
		recheck: recheck,
		timeout: openTimeout,
		start:   time.Now(),
		stop:    make(chan struct{}),
		lru:     lru,
		byPlace: make(map[any]*entry),
		live:    make(map[*entry]struct{}),
		evicted: make(map[Cause]uint64),
	}
}

// pin returns what make makes for the tenant, the same one as long as the
// tenant is open: it is the id alone, and holds no pool.
func (c *cache) pin(id string, make func(id string) *held) *held {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.lru.Peek(id)
	if !ok {
		return make(id)
	}
	if e.held == nil {
		e.held = make(id)
	}
	return e.held
}

// acquire leases the tenant's entry, opening it if need be. The caller gives
// it back with release, soon: a lease is for one call into database/sql.
func (c *cache) acquire(ctx context.Context, id string) (*entry, error) {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, &Error{Op: "open", Tenant: id, Err: ErrClosed}
		}
		e, ok := c.lru.Get(id)
		if ok && e.opened {
			e.refs++
			e.used = c.now
			c.hits++
			check := c.now >= e.checkAt && !e.rechecking
			if check {
				e.rechecking = true
				e.news = c.news
				e.refs++
			}
			c.mu.Unlock()
			if check {
				go c.runRecheck(context.WithoutCancel(ctx), e)
			}
			return e, nil
		}
		var victims []*entry
		if !ok {
			e = c.addLocked(ctx, id)
			victims = c.trimLocked()
		}
		e.refs++
		c.misses++
		c.mu.Unlock()
		c.retire(victims, CauseCapacity)

		err := e.wait(ctx)
		if err == nil {
			return e, nil
		}
		c.release(e)
		if err != errAgain {
			return nil, err
		}
	}
}

// wait waits until e is open. The opening is not the waiter's: it goes on if
// the waiter gives up.
func (e *entry) wait(ctx context.Context) error {
	select {
	case <-e.ready:
		return e.err
	case <-e.late:
		return &Error{Op: "open", Tenant: e.id, Err: ErrUnavailable,
			Detail: fmt.Sprintf("the resolver has not answered within %s", openTimeout),
			Hint:   "let Resolve respect its context's deadline"}
	case <-ctx.Done():
		return &Error{Op: "open", Tenant: e.id, Cause: context.Cause(ctx)}
	}
}

// addLocked puts a new entry into the map and starts to open it.
func (c *cache) addLocked(ctx context.Context, id string) *entry {
	e := &entry{
		id:    id,
		ready: make(chan struct{}),
		late:  make(chan struct{}),
		gone:  make(chan struct{}),
		refs:  1,
		used:  c.now,
		news:  c.news,
	}
	c.lru.Add(id, e) // never over a key that is there: that would lose its pool
	c.live[e] = struct{}{}
	if !c.sweeping {
		c.sweeping = true
		c.now = time.Since(c.start)
		c.workers.Go(c.sweep)
	}
	go c.open(context.WithoutCancel(ctx), e)
	return e
}

// open opens e under a deadline of its own, so that a caller who gives up
// can't spoil it for the rest.
func (c *cache) open(ctx context.Context, e *entry) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	late := time.AfterFunc(c.timeout, func() { close(e.late) })
	pool, err := c.opener.open(ctx, e.id)
	cancel()
	late.Stop()

	var clash *entry
	c.mu.Lock()
	if err == nil {
		e.pool = pool
		if place := pool.identity(); place != nil && !e.retired {
			if other, ok := c.byPlace[place]; ok {
				clash = other
				err = &Error{Op: "open", Tenant: e.id, Err: ErrUnavailable,
					Detail: "its database is open for tenant " + quoteID(other.id),
					Hint:   "give each tenant a database of its own"}
			} else {
				c.byPlace[place] = e
			}
		}
	}
	switch {
	case err == nil && e.retired:
		e.err = errAgain
		if c.closed {
			e.err = &Error{Op: "open", Tenant: e.id, Err: ErrClosed}
		}
		e.opened = true // it has a pool, to be retired by the last release
	case err == nil:
		e.opened = true
		e.used = c.now
		c.trustLocked(e)
		c.openedTotal++
	default:
		e.err = err
		c.failedTotal++
		if !e.retired {
			c.removeLocked(e)
		}
	}
	check := clash != nil && clash.opened && !clash.retired && !clash.rechecking
	if check {
		clash.rechecking = true
		clash.news = c.news
		clash.refs++
	}
	c.mu.Unlock()
	close(e.ready)
	if check { // it may be the one that moved away
		go c.runRecheck(context.WithoutCancel(ctx), clash)
	}

	if err != nil {
		c.observe(Event{Kind: EventFailed, Tenant: e.id, Err: err, Took: time.Since(began)})
	} else {
		c.observe(Event{Kind: EventOpened, Tenant: e.id, Took: time.Since(began)})
	}
	c.release(e)
}

// release gives a lease back.
func (c *cache) release(e *entry) {
	c.mu.Lock()
	e.refs--
	var victims []*entry
	last := e.lastLocked()
	if !last && c.lru.Len() > c.max {
		victims = c.trimLocked() // what was in use when its turn came
	}
	c.mu.Unlock()
	if last {
		c.finish(e)
	}
	if len(victims) > 0 {
		c.retire(victims, CauseCapacity)
	}
}

// lastLocked reports, once, that e has left the map and has no lease any more:
// whoever is told so finishes it.
func (e *entry) lastLocked() bool {
	if !e.retired || e.refs > 0 || e.finished {
		return false
	}
	e.finished = true
	return true
}

// trimLocked takes the least recently used entries out of the map until it
// holds no more than max. One that is leased is passed over: the map may be
// larger for as long as a call lasts.
func (c *cache) trimLocked() (victims []*entry) {
	for tries := c.lru.Len(); c.lru.Len() > c.max && tries > 0; tries-- {
		id, e, _ := c.lru.GetOldest()
		if e.refs > 0 {
			e.used = c.now
			c.lru.Get(id) // to the young end
			continue
		}
		c.removeLocked(e)
		victims = append(victims, e)
	}
	return victims
}

// removeLocked takes e out of the map. Whoever removes e also sees that it is
// finished: at once by retire, or by the last release.
func (c *cache) removeLocked(e *entry) {
	if cur, ok := c.lru.Peek(e.id); ok && cur == e {
		c.lru.Remove(e.id)
	}
	if e.pool != nil {
		if place := e.pool.identity(); place != nil && c.byPlace[place] == e {
			delete(c.byPlace, place)
		}
	}
	e.retired = true
}

// retire finishes removed entries that have no lease, and tells the observer.
func (c *cache) retire(removed []*entry, cause Cause) {
	if len(removed) == 0 {
		return
	}
	idle := make([]*entry, 0, len(removed))
	c.mu.Lock()
	for _, e := range removed {
		if e.lastLocked() {
			idle = append(idle, e)
		}
	}
	c.evicted[cause] += uint64(len(removed))
	c.mu.Unlock()
	for _, e := range idle {
		c.finish(e)
	}
	for _, e := range removed {
		c.observe(Event{Kind: EventEvicted, Tenant: e.id, Cause: cause})
	}
}

// finish retires the pool of an entry for which lastLocked was true.
func (c *cache) finish(e *entry) {
	if e.pool == nil {
		c.forget(e)
		return
	}
	e.pool.retire()
	go func() {
		<-e.pool.gone()
		c.forget(e)
	}()
}

func (c *cache) forget(e *entry) {
	c.mu.Lock()
	delete(c.live, e)
	c.mu.Unlock()
	close(e.gone)
}

// evict retires the tenant's pool, and reports whether it was there.
func (c *cache) evict(id string, cause Cause) bool {
	c.mu.Lock()
	e, ok := c.lru.Peek(id)
	if ok {
		c.removeLocked(e)
	}
	c.mu.Unlock()
	if ok {
		c.retire([]*entry{e}, cause)
	}
	return ok
}

// evictEntry is evict for this very entry, not for one that took its place.
func (c *cache) evictEntry(e *entry, cause Cause) {
	c.mu.Lock()
	removed := !e.retired
	if removed {
		c.removeLocked(e)
	}
	c.mu.Unlock()
	if removed {
		c.retire([]*entry{e}, cause)
	}
}

// owner returns the tenant whose live pool place is; used to prove where a
// raw connection came from.
func (c *cache) owner(is func(tenantPool) bool) (id string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := range c.live {
		if e.pool != nil && e.opened && is(e.pool) {
			return e.id, true
		}
	}
	return "", false
}

// drain waits until nothing is left of the tenant's retired pools.
func (c *cache) drain(ctx context.Context, id string) error {
	c.evict(id, CauseEvicted)
	return c.await(ctx, "drain", func(e *entry) bool { return e.id == id && e.retired })
}

// await waits until all entries for which want is true are gone.
func (c *cache) await(ctx context.Context, op string, want func(*entry) bool) error {
	var wait []*entry
	c.mu.Lock()
	for e := range c.live {
		if want(e) {
			wait = append(wait, e)
		}
	}
	c.mu.Unlock()
	for _, e := range wait {
		select {
		case <-e.gone:
		case <-ctx.Done():
			err := &Error{Op: op, Tenant: e.id, Cause: context.Cause(ctx)}
			select {
			case <-e.gone:
				continue // both were ready
			case <-e.ready:
				left := 0
				if e.pool != nil {
					left = e.pool.conns()
				}
				err.Detail = fmt.Sprintf("%d connections are still in use", left)
				err.Hint = "close its Rows and transactions, or call again with more time"
			default:
				err.Detail = "the resolver has not answered"
				err.Hint = "let Resolve respect its context's deadline"
			}
			return err
		}
	}
	return nil
}

// runRecheck resolves e again and retires it if its database is another one.
// The caller has leased e and set rechecking.
func (c *cache) runRecheck(ctx context.Context, e *entry) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	cause, err := c.opener.recheck(ctx, e.id, e.pool)
	cancel()
	if err != nil {
		c.observe(Event{Kind: EventFailed, Tenant: e.id, Err: err})
	}
	if cause != "" {
		c.evictEntry(e, cause)
	}
	c.mu.Lock()
	e.rechecking = false
	c.trustLocked(e)
	c.mu.Unlock()
	c.release(e)
}

// trustLocked trusts what the resolver said of e for a while, unless
// recheckAll was called after it was asked.
func (c *cache) trustLocked(e *entry) {
	e.checkAt = 0
	if e.news == c.news {
		e.checkAt = c.now + c.recheck
	}
}

// recheckAll makes the next use of every open pool resolve it again.
func (c *cache) recheckAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.news++
	for e := range c.live {
		e.checkAt = 0
	}
}

// sweep keeps the coarse clock and retires idle pools.
func (c *cache) sweep() {
	period := min(c.idle, c.recheck)/4 + 1
	ticker := time.NewTicker(min(period, 15*time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-ticker.C:
		}
		var victims []*entry
		c.mu.Lock()
		c.now = time.Since(c.start)
		for {
			id, e, ok := c.lru.GetOldest()
			if !ok || c.now-e.used < c.idle {
				break // the rest was used later
			}
			if e.refs > 0 { // in use now, maybe for long; the rest must not wait for it
				e.used = c.now
				c.lru.Get(id) // to the young end
				continue
			}
			c.removeLocked(e)
			victims = append(victims, e)
		}
		c.mu.Unlock()
		c.retire(victims, CauseIdle)
	}
}

// close refuses new work, retires every pool and waits until all are gone.
func (c *cache) close(ctx context.Context) error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	var removed []*entry
	if first {
		close(c.stop)
		for _, e := range c.lru.Values() {
			c.removeLocked(e)
			removed = append(removed, e)
		}
	}
	c.mu.Unlock()
	c.retire(removed, CauseClosed)
	if err := c.await(ctx, "close", func(*entry) bool { return true }); err != nil {
		return err
	}
	c.workers.Wait()
	return nil
}

func (c *cache) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
