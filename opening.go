package tenancy

import (
	"context"
	"time"
)

// step is what an opening is at, for those who wait for it.
type step int32

const (
	stepResolve step = iota
	stepVersion      // the database is asked for the version of its schema
	stepMigrate      // and brought forward
)

// open opens e under bounds of its own, so that a caller who gives up can't
// spoil it for the rest. Close ends it.
func (c *cache) open(ctx context.Context, e *entry, narrow bool) {
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	ended := context.AfterFunc(c.life, cancel)
	late := time.AfterFunc(c.timeout, func() { close(e.late) })
	pool, err := c.opener.open(ctx, e.id, func(s step) {
		if s <= step(e.at.Load()) {
			return // a look after a migration is still a part of that
		}
		e.at.Store(int32(s))
		if s == stepMigrate && late.Stop() {
			late.Reset(c.patience)
		}
	})
	ended()
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
	e.pool = pool // that of a failure is retired by the last release
	if err == nil && !e.retired {
		if clash = c.placeLocked(e); clash != nil {
			err = &Error{Op: "open", Tenant: e.id, Err: ErrUnavailable,
				Detail: "its database is open for tenant " + quoteID(clash.id),
				Hint:   "give each tenant a database of its own"}
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
		if c.closed { // which has ended it
			err = &Error{Op: "open", Tenant: e.id, Err: ErrClosed}
		}
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

// placeLocked notes where e's databases are, or returns the other tenant's entry
// that has one of them.
func (c *cache) placeLocked(e *entry) (clash *entry) {
	places := e.pool.places()
	for _, place := range places {
		if other, ok := c.byPlace[place]; ok {
			return other
		}
	}
	for _, place := range places {
		c.byPlace[place] = e
	}
	return nil
}
