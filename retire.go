package tenancy

import (
	"context"
	"fmt"
)

// lastLocked reports, once, that e has left the map and has no lease any more:
// whoever is told so finishes it.
func (e *entry) lastLocked() bool {
	if !e.retired || e.refs > 0 || e.finished {
		return false
	}
	e.finished = true
	return true
}

// excessLocked is how many pools there are too many. Those in use beyond half
// of the room don't count: callers that hang on one server must not cost the
// other tenants their pools.
func (c *cache) excessLocked() int {
	return c.pools - c.max - max(0, c.leased-(c.max+1)/2)
}

// trimLocked takes the least recently used entries out of the map until there
// are no more than there may be. One that is in use is passed over: the map may
// be larger for as long as a call lasts.
func (c *cache) trimLocked() (victims []*entry) {
	for tries := c.lru.Len(); c.excessLocked() > 0 && tries > 0; tries-- {
		id, e, _ := c.lru.GetOldest()
		if e.refs > 0 || e.transient {
			e.used = c.now
			c.lru.Get(id) // to the young end
			continue
		}
		c.removeLocked(e)
		victims = append(victims, e)
	}
	return victims
}

// keepLocked makes a transient entry one like the others.
func (c *cache) keepLocked(e *entry) (victims []*entry) {
	e.transient = false
	c.pools++
	c.leased++ // the caller's lease
	return c.trimLocked()
}

// removeLocked takes e out of the map. Whoever removes e also sees that it is
// finished: at once by retire, or by the last release.
func (c *cache) removeLocked(e *entry) {
	if cur, ok := c.lru.Peek(e.id); ok && cur == e {
		c.lru.Remove(e.id)
		if c.countsLocked(e) {
			c.pools--
			if e.refs > 0 {
				c.leased--
			}
		}
	}
	if e.pool != nil {
		for _, place := range e.pool.places() {
			if c.byPlace[place] == e {
				delete(c.byPlace, place)
			}
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
	c.absent.remove(id)
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
			err := &Error{Op: op, Tenant: e.id, Cause: causeOf(ctx)}
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
				err.Detail, err.Hint = e.pending("")
			}
			return err
		}
	}
	return nil
}

// close refuses new work, retires every pool and waits until all are gone.
func (c *cache) close(ctx context.Context) error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	var removed []*entry
	if first {
		for _, e := range c.lru.Values() {
			c.removeLocked(e)
			removed = append(removed, e)
		}
	}
	c.mu.Unlock()
	c.end()
	c.retire(removed, CauseClosed)
	if err := c.await(ctx, "close", func(*entry) bool { return true }); err != nil {
		return err
	}
	c.workers.Wait()
	return nil
}
