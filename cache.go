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
	// places are what tells its databases from those of other pools, as far as
	// that is known.
	places() []any
	// narrow limits the pool to the few connections of a turn in a sweep, or
	// lifts that limit again.
	narrow(bool)
}

// opener makes pools for the cache. Its methods may block, and must not panic.
type opener interface {
	//
	// open bounds its steps by itself, and tells at of them. A pool that it
	// returns along with an error is retired.
	open(ctx context.Context, id string, at func(step)) (tenantPool, error)
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
	opener   opener
	observe  func(Event)
	max      int           // open pools
	idle     time.Duration // unused pools are retired after it
	recheck  time.Duration // open pools are resolved again after it
	timeout  time.Duration // of one recheck, and of a wait for an opening
	patience time.Duration // of a wait for a migration, from when that begins
	start    time.Time
	life     context.Context // ended by close
	end      context.CancelFunc
	workers  sync.WaitGroup // the sweeper

	mu       sync.Mutex
	lru      *simplelru.LRU[string, *entry] // what acquire finds
	byPlace  map[any]*entry                 // entries of lru by tenantPool.places
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
	life, end := context.WithCancel(context.Background())
	return &cache{
		opener:   o,
		observe:  observe,
		max:      limits.MaxPools,
		idle:     limits.IdleTimeout,
		recheck:  recheck,
		timeout:  openTimeout,
		patience: limits.AcquireTimeout,
		start:    time.Now(),
		life:     life,
		end:      end,
		lru:      lru,
		byPlace:  make(map[any]*entry),
		live:     make(map[*entry]struct{}),
		absent:   newAbsentees(),
		evicted:  make(map[Cause]uint64),
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
