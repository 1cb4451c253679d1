package tenancyprometheus

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gorm-tenancy/tenancy"
)

// figure is one metric, and where its value is in a T.
type figure[T any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*T) float64
}

func gauge[T any](name, help string, of func(*T) float64, labels ...string) figure[T] {
	return figure[T]{desc(name, help, labels...), prometheus.GaugeValue, of}
}

func counter[T any](name, help string, of func(*T) float64, labels ...string) figure[T] {
	return figure[T]{desc(name, help, labels...), prometheus.CounterValue, of}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tenancy_"+name, help, labels, nil)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var ofPlugin = []figure[tenancy.Stats]{
	gauge("pools_max", "The limit of open pools.",
		func(s *tenancy.Stats) float64 { return float64(s.MaxPools) }),
	gauge("pools", "Tenants whose pool is open.",
		func(s *tenancy.Stats) float64 { return float64(s.Pools) }),
	gauge("pools_in_use", "Open pools with a call in progress.",
		func(s *tenancy.Stats) float64 { return float64(s.InUse) }),
	gauge("pools_opening", "Pools that are being opened.",
		func(s *tenancy.Stats) float64 { return float64(s.Opening) }),
	gauge("pools_sweeping", "Pools that are open for a turn in Each.",
		func(s *tenancy.Stats) float64 { return float64(s.Sweeping) }),
	gauge("pools_draining", "Retired pools that still have connections.",
		func(s *tenancy.Stats) float64 { return float64(s.Draining) }),
	gauge("connections", "Physical connections to tenants' databases.",
		func(s *tenancy.Stats) float64 { return float64(s.Conns) }),
	counter("pool_hits_total", "Statements that found their pool open.",
		func(s *tenancy.Stats) float64 { return float64(s.Hits) }),
	counter("pool_misses_total", "Statements that did not find their pool open.",
		func(s *tenancy.Stats) float64 { return float64(s.Misses) }),
	counter("pools_opened_total", "Pools that were opened.",
		func(s *tenancy.Stats) float64 { return float64(s.Opened) }),
	counter("pools_failed_total", "Pools that could not be opened.",
		func(s *tenancy.Stats) float64 { return float64(s.Failed) }),
	counter("statements_refused_total", "Statements that were refused.",
		func(s *tenancy.Stats) float64 { return float64(s.Refused) }),
	counter("replica_reads_total", "Statements that a replica has answered.",
		func(s *tenancy.Stats) float64 { return float64(s.ReplicaReads) }),
	counter("replica_fallbacks_total", "Reads that went from a replica to the next or to the primary.",
		func(s *tenancy.Stats) float64 { return float64(s.ReplicaFallbacks) }),
}

var evicted = desc("pools_evicted_total", "Pools that were retired, by cause.", "cause")

var ofServer = []figure[tenancy.ServerStats]{
	gauge("server_pools", "Open pools on the server, those for replicas too.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Pools) }, "server"),
	gauge("server_replica_pools", "Open pools on the server that are for replicas.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Replicas) }, "server"),
	gauge("server_connections_max", "The budget: how many connections the process may have to the server.",
		func(s *tenancy.ServerStats) float64 { return float64(s.MaxConns) }, "server"),
	gauge("server_connections", "Connections to the server: in use, idle, being dialled or on their way out.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Conns) }, "server"),
	gauge("server_connections_idle", "Connections to the server that are idle.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Idle) }, "server"),
	gauge("server_connections_dialing", "Connections to the server that are being dialled.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Dialing) }, "server"),
	gauge("server_approximate", "1 if it is not known exactly when connections are gone.",
		func(s *tenancy.ServerStats) float64 { return truth(s.Approximate) }, "server"),
	gauge("server_waiting", "Callers that wait for a connection now.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Waiting) }, "server"),
	counter("server_waits_total", "Callers that had to wait for a connection.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Waits) }, "server"),
	counter("server_wait_seconds_total", "The sum of the waits for a connection.",
		func(s *tenancy.ServerStats) float64 { return s.WaitTime.Seconds() }, "server"),
	counter("server_exhausted_total", "Callers that waited for a connection in vain.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Exhausted) }, "server"),
	counter("server_dials_total", "Attempts to connect.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Dials) }, "server"),
	counter("server_dials_failed_total", "Attempts to connect that failed.",
		func(s *tenancy.ServerStats) float64 { return float64(s.DialsFailed) }, "server"),
	counter("server_saturated_total", "How often the server itself had no connection left.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Saturated) }, "server"),
	counter("server_reclaimed_total", "Connections that were closed to make room for another tenant.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Reclaimed) }, "server"),
	counter("server_handed_over_total", "Connections that went from one caller to another of the same tenant.",
		func(s *tenancy.ServerStats) float64 { return float64(s.HandedOver) }, "server"),
	gauge("server_down", "1 if the server can't be reached: callers fail at once.",
		func(s *tenancy.ServerStats) float64 { return truth(s.Down) }, "server"),
	counter("server_trips_total", "How often the server was found to be down.",
		func(s *tenancy.ServerStats) float64 { return float64(s.Trips) }, "server"),
}

// Counters of a tenant start at 0 when its pool is opened, which is what rate()
// expects of a process that has started anew.
var ofTenant = []figure[tenancy.TenantStats]{
	gauge("tenant_connections_max", "How many connections the tenant may have to the server.",
		func(t *tenancy.TenantStats) float64 { return float64(t.MaxConns) }, "tenant", "server"),
	gauge("tenant_connections", "The tenant's connections to the server.",
		func(t *tenancy.TenantStats) float64 { return float64(t.Conns) }, "tenant", "server"),
	gauge("tenant_connections_idle", "The tenant's connections to the server that are idle.",
		func(t *tenancy.TenantStats) float64 { return float64(t.Idle) }, "tenant", "server"),
	gauge("tenant_waiting", "The tenant's callers that wait for a connection now.",
		func(t *tenancy.TenantStats) float64 { return float64(t.Waiting) }, "tenant", "server"),
	counter("tenant_waits_total", "The tenant's callers that had to wait for a connection, since its pool was opened.",
		func(t *tenancy.TenantStats) float64 { return float64(t.Waits) }, "tenant", "server"),
	counter("tenant_wait_seconds_total", "The sum of their waits, since the pool was opened.",
		func(t *tenancy.TenantStats) float64 { return t.WaitTime.Seconds() }, "tenant", "server"),
	counter("tenant_exhausted_total", "Those that waited in vain, since the pool was opened.",
		func(t *tenancy.TenantStats) float64 { return float64(t.Exhausted) }, "tenant", "server"),
}
