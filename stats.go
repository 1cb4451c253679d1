package tenancy

import (
	"maps"
	"time"
)

// Cause says why a pool was retired.
type Cause string

// The causes of retirement.
const (
	CauseCapacity Cause = "capacity" // more pools than Limits.MaxPools
	CauseIdle     Cause = "idle"     // unused for Limits.IdleTimeout
	CauseEvicted  Cause = "evicted"  // Plugin.Evict or Plugin.Drain
	CauseChanged  Cause = "changed"  // the Database changed, or a Watcher told so
	CauseGone     Cause = "gone"     // the tenant is no longer found, or is suspended
	CauseClosed   Cause = "closed"   // Plugin.Close
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventOpened  EventKind = "opened"  // a tenant's pool was opened
	EventEvicted EventKind = "evicted" // a pool was retired; see Cause
	EventRefused EventKind = "refused" // a statement was refused; see Err
	EventFailed  EventKind = "failed"  // opening, rechecking or watching failed; see Err
)

// Event is what an [Observer] is told. It holds no DSN.
type Event struct {
	Kind   EventKind
	Tenant string        // may be empty or invalid for EventRefused: quote it
	Cause  Cause         // for EventEvicted
	Err    error         // for EventRefused and EventFailed
	Took   time.Duration // for EventOpened and EventFailed: how long opening took
}

// Observer is told of events, for logs and metrics. Observe is called without
// any lock held, from the goroutine that met the event, so it must not block.
type Observer interface {
	Observe(Event)
}

// ObserverFunc is a function that is an [Observer].
type ObserverFunc func(Event)

// Observe calls f.
func (f ObserverFunc) Observe(e Event) { f(e) }

// Stats is a snapshot of a [Plugin]. Numbers are of this process.
type Stats struct {
	// MaxPools is the limit in force.
	MaxPools int
	// Pools is the number of tenants whose pool is open, Opening of those
	// being opened, and InUse of the open ones with a call in progress.
	Pools, Opening, InUse int
	// Draining is the number of retired pools that still have connections.
	Draining int
	// Conns is the number of physical connections to tenants' databases.
	Conns int
	// Hits and Misses count how often a statement found its pool open.
	Hits, Misses uint64
	// Opened and Failed count the outcomes of opening pools.
	Opened, Failed uint64
	// Evicted counts retired pools by cause.
	Evicted map[Cause]uint64
	// Refused counts refused statements.
	Refused uint64
}

// Stats returns a snapshot. It takes no longer than a statement's own look-up
// per open pool, and asks no database.
func (p *Plugin) Stats() Stats {
	s := p.cache.stats()
	s.Refused = p.refused.Load()
	return s
}

func (c *cache) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{
		MaxPools: c.max,
		Hits:     c.hits,
		Misses:   c.misses,
		Opened:   c.openedTotal,
		Failed:   c.failedTotal,
		Evicted:  maps.Clone(c.evicted),
	}
	for e := range c.live {
		switch {
		case !e.opened:
			s.Opening++
			continue
		case e.retired:
			s.Draining++
		default:
			s.Pools++
			if e.refs > 0 {
				s.InUse++
			}
		}
		s.Conns += e.pool.conns()
	}
	return s
}

func (p *Plugin) observe(e Event) {
	if p.cfg.Observer != nil {
		p.cfg.Observer.Observe(e)
	}
}
