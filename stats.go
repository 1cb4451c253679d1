package tenancy

import (
	"cmp"
	"maps"
	"slices"
	"strings"
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
	CauseSwept    Cause = "swept"    // opened for a turn in Each, which has ended
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventOpened  EventKind = "opened"  // a tenant's pool was opened
	EventEvicted EventKind = "evicted" // a pool was retired; see Cause
	EventRefused EventKind = "refused" // a statement was refused; see Err
	EventFailed  EventKind = "failed"  // opening, connecting, rechecking or watching failed; see Err
	EventWaited  EventKind = "waited"  // a caller had to wait for a connection, for Took; in vain if Err is set
	// EventMigrated says that a tenant was below [Config.Schema], and that its
	// Migrate has succeeded. EventBehind says that the pool of a tenant below
	// it was opened all the same, EventAhead that of one above. Both come once
	// per opening; Err has the versions.
	EventMigrated EventKind = "migrated"
	EventBehind   EventKind = "behind"
	EventAhead    EventKind = "ahead"
	// EventServerDown says that connecting to Server failed so often that its
	// tenants' callers fail at once, but for the one in each second that tries
	// it; EventServerUp, that one succeeded.
	EventServerDown EventKind = "server_down"
	EventServerUp   EventKind = "server_up"
	// EventReplicaDown says that a replica of Tenant, on Server, failed: it is
	// left alone, but for one read in each second that tries it.
	// EventReplicaUp says that it answers again.
	EventReplicaDown EventKind = "replica_down"
	EventReplicaUp   EventKind = "replica_up"
)

// Event is what an [Observer] is told. It holds no DSN.
type Event struct {
	Kind    EventKind
	Tenant  string        // may be empty or invalid for EventRefused: quote it
	Server  string        // for EventWaited, EventServerDown, EventServerUp, EventReplicaDown, EventReplicaUp and a failed connect
	Replica bool          // it concerns a replica of Tenant, not its primary
	Cause   Cause         // for EventEvicted
	Err     error         // for EventRefused, EventFailed, EventWaited, EventServerDown, EventReplicaDown, EventBehind, EventAhead
	Took    time.Duration // how long it took
}

// Observer is told of events, for logs and metrics. Observe is called from the
// goroutine that met the event, so it must not block. No lock of this package is
// held, so it may ask for [Plugin.Stats]; but a connection may be on its way back
// to its pool, so it must not run statements.
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
	// Sweeping is the number of pools that are open for a turn in Each, beside
	// those of Pools.
	Sweeping int
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
	// ReplicaReads counts the statements that a replica has answered.
	// ReplicaFallbacks counts how often one did not, and the read went to the
	// next or to the primary.
	ReplicaReads, ReplicaFallbacks uint64
	// Servers has the figures of each server, by name.
	Servers []ServerStats
}

// ServerStats are the figures of one server, as seen by this process.
type ServerStats struct {
	// Server is its name; "" for databases whose server is not known.
	Server string
	// Pools is the number of open pools on it, and Replicas that of those for
	// replicas.
	Pools, Replicas int
	// MaxConns is the budget, and Conns how much of it is taken: connections
	// that are in use, idle, being dialled or on their way out.
	MaxConns, Conns int
	// Idle and Dialing are those of Conns that are idle or being dialled.
	Idle, Dialing int
	// Approximate says that there are connections whose connector can't tell
	// when they are gone; see [PermitConnector].
	Approximate bool
	// Waiting is the number of callers that wait for a connection now.
	Waiting int
	// Waits counts the callers that had to wait, and WaitTime is the sum of
	// their waits; Exhausted counts those who waited in vain, but for callers
	// that were cancelled.
	Waits, Exhausted uint64
	WaitTime         time.Duration
	// Dials counts attempts to connect, and DialsFailed those that failed.
	// Saturated counts how often the server itself had no connection left.
	Dials, DialsFailed, Saturated uint64
	// Reclaimed counts connections closed to make room for another tenant,
	// and HandedOver those that went from one caller to another of the same
	// tenant who waited.
	Reclaimed, HandedOver uint64
	// Down says that connects of several tenants (or of the only one) have
	// failed in a row: callers fail at once. Trips counts how often it came to
	// that.
	Down  bool
	Trips uint64
}

// TenantStats are the figures of one open tenant.
type TenantStats struct {
	Tenant, Server string
	// Replica says that the figures are of a replica, and not of the primary.
	Replica bool
	// Down says that it is a replica that is left alone, since it failed.
	Down bool
	// MaxConns is the tenant's limit, Conns its connections, Idle those of
	// them that are idle, and Waiting its callers that wait for one.
	MaxConns, Conns, Idle, Waiting int
	// Waits, WaitTime and Exhausted are as in [ServerStats], since the pool
	// was opened.
	Waits, Exhausted uint64
	WaitTime         time.Duration
}

// Stats returns a snapshot. It takes no longer than a statement's own look-up
// per open pool, and asks no database.
func (p *Plugin) Stats() Stats {
	s := p.cache.stats()
	s.Refused = p.refused.Load()
	s.ReplicaReads, s.ReplicaFallbacks = p.opener.replicas.reads.Load(), p.opener.replicas.fallbacks.Load()
	for _, server := range p.servers.all() {
		s.Servers = append(s.Servers, server.stats())
	}
	slices.SortFunc(s.Servers, func(a, b ServerStats) int { return strings.Compare(a.Server, b.Server) })
	return s
}

// TopTenants returns the figures of the n open tenants that press hardest on
// their servers: by callers that wait, then by connections, then by how much
// they have waited. It looks at every open pool. A replica has figures of its
// own.
func (p *Plugin) TopTenants(n int) []TenantStats {
	var all []TenantStats
	for _, tp := range p.cache.openPools() {
		p := tp.(*pool)
		all = append(all, p.dialer.stats())
		if p.replicas == nil {
			continue
		}
		for _, r := range p.replicas.all {
			stats := r.dialer.stats()
			stats.Down = r.retryAt.Load() != 0
			all = append(all, stats)
		}
	}
	slices.SortFunc(all, func(a, b TenantStats) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.Conns, a.Conns),
			cmp.Compare(b.WaitTime, a.WaitTime), strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.Server, b.Server))
	})
	return all[:max(0, min(n, len(all)))]
}

func (s *server) stats() ServerStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := ServerStats{
		Server:      s.name,
		Pools:       s.pools,
		Replicas:    s.replicas,
		MaxConns:    s.size,
		Conns:       s.used,
		Waiting:     int(s.waiting.Load()),
		Waits:       s.count.waits,
		WaitTime:    s.count.waited,
		Exhausted:   s.count.exhausted,
		Dials:       s.count.dials,
		DialsFailed: s.count.failed,
		Saturated:   s.count.saturated,
		Reclaimed:   s.count.reclaimed,
		HandedOver:  s.count.handed,
		Down:        s.breaker.told,
		Trips:       s.count.tripped,
	}
	for _, l := range s.links {
		if _, ok := l.dialer.connector.(PermitConnector); !ok {
			out.Approximate = true
		}
		switch {
		case l.handle == nil:
			out.Dialing++
		case l.isIdle():
			out.Idle++
		}
	}
	return out
}

func (d *dialer) stats() TenantStats {
	s := d.server
	s.mu.Lock()
	defer s.mu.Unlock()
	out := TenantStats{
		Tenant:    d.tenant,
		Server:    s.name,
		Replica:   d.replica,
		MaxConns:  d.limit,
		Conns:     int(d.open.Load()),
		Waiting:   d.waiters.Len(),
		Waits:     d.waits,
		WaitTime:  d.waited,
		Exhausted: d.exhausted,
	}
	for _, l := range s.links {
		if l.dialer == d && l.isIdle() {
			out.Idle++
		}
	}
	return out
}

func (c *cache) openPools() []tenantPool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []tenantPool
	for e := range c.live {
		if e.opened && !e.retired {
			all = append(all, e.pool)
		}
	}
	return all
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
		case !e.opened && e.pool != nil: // it failed, but had a connection by then
			s.Draining++
		case !e.opened:
			s.Opening++
			continue
		case e.retired:
			s.Draining++
		case e.transient:
			s.Sweeping++
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
