package tenancy

import (
	"context"
	"time"
)

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
	c.absent.clear()
	for e := range c.live {
		e.checkAt = 0
	}
}

// doubt makes the next use of the tenant's open pool resolve it again.
func (c *cache) doubt(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.lru.Peek(id); ok {
		e.checkAt = 0
		e.news = c.news - 1 // nor is an answer trusted that is under way
	}
}

// sweep keeps the coarse clock and retires idle pools.
func (c *cache) sweep() {
	period := min(c.idle, c.recheck)/4 + 1
	ticker := time.NewTicker(min(period, 15*time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-c.life.Done():
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
			if e.refs > 0 || e.transient { // in use now, maybe for long; the rest must not wait for it
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
