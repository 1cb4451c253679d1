package tenancy

import (
	"context"
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
	// narrow limits the pool to the few connections of a turn in a sweep, or
	// lifts that limit again.
	narrow(bool)
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
	pools    int                            // entries of lru that are opened, but transient ones
	leased   int                            // of these, those with a lease
	absent   *absentees
	sweeping bool
	closed   bool

	hits, misses, openedTotal, failedTotal uint64
	evicted                                map[Cause]uint64
}

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
		absent:  newAbsentees(),
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
// it back with release, soon: a lease is for one call into database/sql. In a
// sweep the entry does not count as used.
func (c *cache) acquire(ctx context.Context, id string, sweep bool) (*entry, error) {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, &Error{Op: "open", Tenant: id, Err: ErrClosed}
		}
		look := c.lru.Get
		if sweep {
			look = c.lru.Peek
		}
		e, ok := look(id)
		if ok && e.opened {
			c.holdLocked(e)
			if !sweep {
				e.used = c.now
			}
			c.hits++
			check := c.now >= e.checkAt && !e.rechecking
			if check {
				e.rechecking = true
				e.news = c.news
				c.holdLocked(e)
			}
			var victims []*entry
			kept := e.transient && !sweep
			if kept {
				victims = c.keepLocked(e)
			}
			c.mu.Unlock()
			if kept {
				e.pool.narrow(false)
				c.retire(victims, CauseCapacity)
			}
			if check {
				go c.runRecheck(context.WithoutCancel(ctx), e)
			}
			return e, nil
		}
		if !ok {
			if err := c.absent.find(id, time.Since(c.start)); err != nil {
				c.mu.Unlock()
				return nil, err
			}
			e = c.addLocked(ctx, id, sweep)
		}
		c.holdLocked(e)
		if !sweep {
			e.transient = false // it is still being opened, so it counts nowhere yet
		}
		c.misses++
		c.mu.Unlock()

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

// addLocked puts a new entry into the map and starts to open it.
func (c *cache) addLocked(ctx context.Context, id string, transient bool) *entry {
	e := &entry{
		id:        id,
		transient: transient,
		ready:     make(chan struct{}),
		late:      make(chan struct{}),
		gone:      make(chan struct{}),
		refs:      1,
		used:      c.now,
		news:      c.news,
	}
	c.lru.Add(id, e) // never over a key that is there: that would lose its pool
	c.live[e] = struct{}{}
	if !c.sweeping {
		c.sweeping = true
		c.now = time.Since(c.start)
		c.workers.Go(c.sweep)
	}
	go c.open(context.WithoutCancel(ctx), e, transient)
	return e
}

// open opens e under a deadline of its own, so that a caller who gives up
// can't spoil it for the rest.
func (c *cache) open(ctx context.Context, e *entry, narrow bool) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	late := time.AfterFunc(c.timeout, func() { close(e.late) })
	pool, err := c.opener.open(ctx, e.id)
	cancel()
	late.Stop()
	if narrow = narrow && err == nil; narrow {
		pool.narrow(true)
	}

	var (
		clash   *entry
		victims []*entry
	)
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
		if !e.transient {
			c.pools++
			c.leased++               // by whom it was opened for
			victims = c.trimLocked() // only now: an id that nobody knows pushes no one out
		}
	default:
		e.err = err
		c.failedTotal++
		if !e.retired {
			c.removeLocked(e)
			if clash == nil && e.news == c.news {
				c.absent.add(e.id, err, time.Since(c.start))
			}
		}
	}
	check := clash != nil && clash.opened && !clash.retired && !clash.rechecking
	if check {
		clash.rechecking = true
		clash.news = c.news
		c.holdLocked(clash)
	}
	widen := narrow && !e.transient // somebody came meanwhile
	c.mu.Unlock()
	if widen {
		pool.narrow(false)
	}
	close(e.ready)
	c.retire(victims, CauseCapacity)
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

func (c *cache) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
