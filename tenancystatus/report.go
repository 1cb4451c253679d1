package tenancystatus

import (
	"math"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/figures"
)

// Report is what the page shows, and the JSON that it sends. Names of fields stay;
// there may be more of them in a later version. A name tells the unit: _seconds
// are seconds, and _total is a count since the plugin was made, which only grows.
// Times are in UTC. Figures are of this process.
type Report struct {
	// Name is Config.Name, Time when the figures were taken, and Since when the
	// page was made: the process's start, more or less.
	Name  string    `json:"name"`
	Time  time.Time `json:"time"`
	Since time.Time `json:"since"`
	// IntervalSeconds is the time between two samples of History.
	IntervalSeconds float64 `json:"interval_seconds"`
	// Pools are the figures of all tenants: [tenancy.Stats].
	Pools Pools `json:"pools"`
	// Recent is what was counted in the time that History covers.
	Recent Recent `json:"recent"`
	// Servers are those that are down or press hardest, Config.Servers at most,
	// of ServersKnown.
	ServersKnown int      `json:"servers_known"`
	Servers      []Server `json:"servers"`
	// Tenants are those that press hardest, Config.Tenants at most, of
	// TenantsAwake. A replica counts of its own.
	TenantsAwake int      `json:"tenants_awake"`
	Tenants      []Tenant `json:"tenants"`
	// History are the samples, the oldest first.
	History []Sample `json:"history"`
}

// Pools are the figures of all tenants. See [tenancy.Stats].
type Pools struct {
	Max      int `json:"max"`
	Open     int `json:"open"`
	InUse    int `json:"in_use"`
	Opening  int `json:"opening"`
	Draining int `json:"draining"`
	Sweeping int `json:"sweeping"`
	Conns    int `json:"conns"`

	HitsTotal             uint64 `json:"hits_total"`
	MissesTotal           uint64 `json:"misses_total"`
	OpenedTotal           uint64 `json:"opened_total"`
	OpenFailedTotal       uint64 `json:"open_failed_total"`
	RefusedTotal          uint64 `json:"refused_total"`
	ReplicaReadsTotal     uint64 `json:"replica_reads_total"`
	ReplicaFallbacksTotal uint64 `json:"replica_fallbacks_total"`
	// EvictedTotal is by cause; see [tenancy.Cause]. Each cause is there.
	EvictedTotal map[tenancy.Cause]uint64 `json:"evicted_total"`
}

// Recent is how much the counters of [Pools] grew in Seconds, which is from the
// oldest sample to now.
type Recent struct {
	Seconds    float64 `json:"seconds"`
	Statements uint64  `json:"statements"`
	Hits       uint64  `json:"hits"`
	Opened     uint64  `json:"opened"`
	OpenFailed uint64  `json:"open_failed"`
	Evicted    uint64  `json:"evicted"`
	Refused    uint64  `json:"refused"`
}

// Server are the figures of one server. See [tenancy.ServerStats].
type Server struct {
	// Server is its name; "" is for databases whose server is not known.
	Server string `json:"server"`
	Down   bool   `json:"down"`
	// DownSince is the first sample in which it was down, without one between in
	// which it was not. It may have been down for longer if that is the oldest
	// of all.
	DownSince *time.Time `json:"down_since,omitempty"`
	Pools     int        `json:"pools"`
	Replicas  int        `json:"replicas"`
	// MaxConns is the budget, and Conns how much of it is taken: ConnsInUse,
	// which includes those on their way out, ConnsIdle and ConnsDialing.
	MaxConns     int  `json:"max_conns"`
	Conns        int  `json:"conns"`
	ConnsInUse   int  `json:"conns_in_use"`
	ConnsIdle    int  `json:"conns_idle"`
	ConnsDialing int  `json:"conns_dialing"`
	Approximate  bool `json:"approximate"`
	Waiting      int  `json:"waiting"`

	WaitsTotal       uint64  `json:"waits_total"`
	WaitSecondsTotal float64 `json:"wait_seconds_total"`
	ExhaustedTotal   uint64  `json:"exhausted_total"`
	DialsTotal       uint64  `json:"dials_total"`
	DialsFailedTotal uint64  `json:"dials_failed_total"`
	SaturatedTotal   uint64  `json:"saturated_total"`
	ReclaimedTotal   uint64  `json:"reclaimed_total"`
	HandedOverTotal  uint64  `json:"handed_over_total"`
	TripsTotal       uint64  `json:"trips_total"`
	// Recent is how much these grew since the oldest sample that tells.
	Recent ServerRecent `json:"recent"`
}

// ServerRecent is how much the counters of [Server] grew in Seconds.
type ServerRecent struct {
	Seconds     float64 `json:"seconds"`
	Waits       uint64  `json:"waits"`
	WaitSeconds float64 `json:"wait_seconds"`
	Exhausted   uint64  `json:"exhausted"`
	Saturated   uint64  `json:"saturated"`
	Dials       uint64  `json:"dials"`
	DialsFailed uint64  `json:"dials_failed"`
}

// Tenant are the figures of a tenant that is awake, since its pool was opened.
// See [tenancy.TenantStats].
type Tenant struct {
	Tenant  string `json:"tenant"`
	Server  string `json:"server"`
	Replica bool   `json:"replica"`
	// Down says that it is a replica that is left alone, since it failed.
	Down             bool    `json:"down"`
	MaxConns         int     `json:"max_conns"`
	Conns            int     `json:"conns"`
	ConnsIdle        int     `json:"conns_idle"`
	Waiting          int     `json:"waiting"`
	WaitsTotal       uint64  `json:"waits_total"`
	WaitSecondsTotal float64 `json:"wait_seconds_total"`
	ExhaustedTotal   uint64  `json:"exhausted_total"`
}

// Sample is what was noted at one moment.
type Sample struct {
	Time       time.Time `json:"time"`
	PoolsOpen  int       `json:"pools_open"`
	PoolsInUse int       `json:"pools_in_use"`
	Conns      int       `json:"conns"`
	// Waiting is the number of callers that wait, on all servers.
	Waiting int `json:"waiting"`
	// StatementsTotal are the hits and the misses.
	StatementsTotal uint64 `json:"statements_total"`
	HitsTotal       uint64 `json:"hits_total"`
	OpenedTotal     uint64 `json:"opened_total"`
	OpenFailedTotal uint64 `json:"open_failed_total"`
	EvictedTotal    uint64 `json:"evicted_total"`
	RefusedTotal    uint64 `json:"refused_total"`
	// Servers are those that were down or pressed hardest, Config.Servers at
	// most, of ServersKnown; by name.
	ServersKnown int            `json:"servers_known"`
	Servers      []ServerSample `json:"servers"`
}

// ServerSample is what was noted of one server.
type ServerSample struct {
	Server           string  `json:"server"`
	Down             bool    `json:"down"`
	MaxConns         int     `json:"max_conns"`
	Conns            int     `json:"conns"`
	ConnsIdle        int     `json:"conns_idle"`
	Waiting          int     `json:"waiting"`
	WaitsTotal       uint64  `json:"waits_total"`
	WaitSecondsTotal float64 `json:"wait_seconds_total"`
	ExhaustedTotal   uint64  `json:"exhausted_total"`
	SaturatedTotal   uint64  `json:"saturated_total"`
	DialsTotal       uint64  `json:"dials_total"`
	DialsFailedTotal uint64  `json:"dials_failed_total"`
}

// Report returns what the page shows now.
func (p *Page) Report() Report {
	now := time.Now()
	stats := p.cfg.Plugin.Stats()
	r := Report{
		Name:            p.cfg.Name,
		Time:            now.UTC(),
		Since:           p.since.UTC(),
		IntervalSeconds: p.cfg.Interval.Seconds(),
		Pools:           poolsOf(stats),
		ServersKnown:    len(stats.Servers),
		Servers:         []Server{},
		Tenants:         []Tenant{},
		// Half an interval more: tickers are late at times.
		History: p.history.between(now.Add(-p.cfg.History-p.cfg.Interval/2), now),
	}
	if len(r.History) > 0 {
		r.Recent = recently(&r.History[0], now, stats)
	}
	for _, s := range hardest(stats.Servers, p.cfg.Servers) {
		r.Servers = append(r.Servers, serverOf(s, r.History, now))
	}
	// All are asked for in any case, and counting them is all that is left.
	tenants := p.cfg.Plugin.TopTenants(math.MaxInt)
	r.TenantsAwake = len(tenants)
	for _, t := range tenants[:max(0, min(p.cfg.Tenants, len(tenants)))] {
		r.Tenants = append(r.Tenants, Tenant{
			Tenant:           t.Tenant,
			Server:           t.Server,
			Replica:          t.Replica,
			Down:             t.Down,
			MaxConns:         t.MaxConns,
			Conns:            t.Conns,
			ConnsIdle:        t.Idle,
			Waiting:          t.Waiting,
			WaitsTotal:       t.Waits,
			WaitSecondsTotal: t.WaitTime.Seconds(),
			ExhaustedTotal:   t.Exhausted,
		})
	}
	return r
}

func poolsOf(s tenancy.Stats) Pools {
	return Pools{
		Max:                   s.MaxPools,
		Open:                  s.Pools,
		InUse:                 s.InUse,
		Opening:               s.Opening,
		Draining:              s.Draining,
		Sweeping:              s.Sweeping,
		Conns:                 s.Conns,
		HitsTotal:             s.Hits,
		MissesTotal:           s.Misses,
		OpenedTotal:           s.Opened,
		OpenFailedTotal:       s.Failed,
		RefusedTotal:          s.Refused,
		ReplicaReadsTotal:     s.ReplicaReads,
		ReplicaFallbacksTotal: s.ReplicaFallbacks,
		EvictedTotal:          figures.Evicted(s),
	}
}

func recently(from *Sample, now time.Time, s tenancy.Stats) Recent {
	var to Sample
	to.fill(now, s, nil)
	return Recent{
		Seconds:    now.Sub(from.Time).Seconds(),
		Statements: grown(from.StatementsTotal, to.StatementsTotal),
		Hits:       grown(from.HitsTotal, to.HitsTotal),
		Opened:     grown(from.OpenedTotal, to.OpenedTotal),
		OpenFailed: grown(from.OpenFailedTotal, to.OpenFailedTotal),
		Evicted:    grown(from.EvictedTotal, to.EvictedTotal),
		Refused:    grown(from.RefusedTotal, to.RefusedTotal),
	}
}

func serverOf(s tenancy.ServerStats, past []Sample, now time.Time) Server {
	out := Server{
		Server:           s.Server,
		Down:             s.Down,
		Pools:            s.Pools,
		Replicas:         s.Replicas,
		MaxConns:         s.MaxConns,
		Conns:            s.Conns,
		ConnsInUse:       max(0, s.Conns-s.Idle-s.Dialing),
		ConnsIdle:        s.Idle,
		ConnsDialing:     s.Dialing,
		Approximate:      s.Approximate,
		Waiting:          s.Waiting,
		WaitsTotal:       s.Waits,
		WaitSecondsTotal: s.WaitTime.Seconds(),
		ExhaustedTotal:   s.Exhausted,
		DialsTotal:       s.Dials,
		DialsFailedTotal: s.DialsFailed,
		SaturatedTotal:   s.Saturated,
		ReclaimedTotal:   s.Reclaimed,
		HandedOverTotal:  s.HandedOver,
		TripsTotal:       s.Trips,
	}
	if s.Down {
		since := now.UTC()
		for i := len(past) - 1; i >= 0; i-- {
			row := past[i].server(s.Server)
			if row == nil || !row.Down {
				break
			}
			since = past[i].Time
		}
		out.DownSince = &since
	}
	if from, at := began(past, s.Server); from != nil {
		out.Recent = ServerRecent{
			Seconds:     now.Sub(at).Seconds(),
			Waits:       grown(from.WaitsTotal, s.Waits),
			WaitSeconds: grown(from.WaitSecondsTotal, s.WaitTime.Seconds()),
			Exhausted:   grown(from.ExhaustedTotal, s.Exhausted),
			Saturated:   grown(from.SaturatedTotal, s.Saturated),
			Dials:       grown(from.DialsTotal, s.Dials),
			DialsFailed: grown(from.DialsFailedTotal, s.DialsFailed),
		}
	}
	return out
}

// began returns the oldest sample of a server, and when it was taken; nil if it is
// not known. A server that was not there yet began with zeros.
func began(past []Sample, server string) (*ServerSample, time.Time) {
	var zeros *Sample
	for i := range past {
		if from := past[i].server(server); from != nil && zeros == nil {
			return from, past[i].Time
		} else if from != nil {
			break
		}
		if past[i].complete() {
			zeros = &past[i]
		} else {
			zeros = nil // it may have been there
		}
	}
	if zeros == nil {
		return nil, time.Time{}
	}
	return &ServerSample{}, zeros.Time
}
