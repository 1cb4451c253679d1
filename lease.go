package tenancy

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// entry is one opening of one tenant's pool. A tenant that is opened again has
// another entry, so identity is compared by pointer, never by id.
type entry struct {
	id    string
	ready chan struct{} // closed when pool or err is set
	late  chan struct{} // closed when opening takes too long; it goes on
	gone  chan struct{} // closed when nothing is left of it
	pool  tenantPool    // written before ready is closed, read after
	err   error         // likewise
	at    atomic.Int32  // the step that its opening is at

	// The rest is guarded by cache.mu.
	refs       int // leases, one of them the opener's own
	turns      int // in sweeps; a turn is no lease, its statements have their own
	opened     bool
	transient  bool // opened by a turn, and wanted by nobody else so far
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

// holdLocked adds a lease.
func (c *cache) holdLocked(e *entry) {
	e.refs++
	if e.refs == 1 && c.countsLocked(e) {
		c.leased++
	}
}

// countsLocked reports whether e is one of pools.
func (c *cache) countsLocked(e *entry) bool { return e.opened && !e.retired && !e.transient }

// wait waits until e is open. The opening is not the waiter's: it goes on if
// the waiter gives up.
func (e *entry) wait(ctx context.Context) error {
	select {
	case <-e.ready:
		return e.err
	default:
	}
	if id, ok := ctx.Value(migrating{}).(string); ok && id == e.id {
		return &Error{Op: "open", Tenant: e.id, Err: ErrUnavailable,
			Detail: "this statement is part of the tenant's migration, and would wait for itself",
			Hint:   "use Plugin.OpenDB in Config.Schema.Migrate"}
	}
	select {
	case <-e.ready:
		return e.err
	case <-e.late:
		err := &Error{Op: "open", Tenant: e.id, Err: ErrUnavailable}
		err.Detail, err.Hint = e.pending(" within " + openTimeout.String())
		return err
	case <-ctx.Done():
		err := &Error{Op: "open", Tenant: e.id, Cause: causeOf(ctx)}
		if step(e.at.Load()) == stepMigrate {
			err.Detail, err.Hint = e.pending("")
		}
		return err
	}
}

// pending says what has not happened so far, and what to do about it.
func (e *entry) pending(within string) (detail, hint string) {
	switch step(e.at.Load()) {
	case stepMigrate:
		return "its schema is being migrated", "try again later; the migration goes on"
	case stepVersion:
		return "the version of its schema has not been read" + within, "let Config.Schema.Current respect its context's deadline"
	}
	return "the resolver has not answered" + within, "let Resolve respect its context's deadline"
}

// release gives a lease back.
func (c *cache) release(e *entry) {
	c.mu.Lock()
	c.dropLocked(e)
}

// beginTurn opens the tenant's pool for its turn in a sweep, unless it is open.
// The pool may be evicted during the turn, as any that is not leased.
func (c *cache) beginTurn(ctx context.Context, id string) (*entry, error) {
	e, err := c.acquire(ctx, id, true)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	e.turns++
	c.dropLocked(e)
	return e, nil
}

// endTurn ends a turn.
func (c *cache) endTurn(e *entry) {
	c.mu.Lock()
	c.holdLocked(e)
	e.turns--
	c.dropLocked(e)
}

// dropLocked gives a lease back, and unlocks. A transient pool ends with its
// last turn, or with its last lease where the turn was given up before it
// began.
func (c *cache) dropLocked(e *entry) {
	e.refs--
	if e.refs == 0 && c.countsLocked(e) {
		c.leased--
	}
	swept := e.transient && e.refs == 0 && e.turns == 0 && e.opened && !e.retired
	if swept {
		c.removeLocked(e)
	}
	var victims []*entry
	last := e.lastLocked()
	if !last && c.excessLocked() > 0 {
		victims = c.trimLocked() // what was in use when its turn came
	}
	c.mu.Unlock()
	if last {
		c.finish(e)
	}
	if swept {
		c.retire([]*entry{e}, CauseSwept)
	}
	c.retire(victims, CauseCapacity)
}
