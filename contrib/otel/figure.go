package tenancyotel

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gorm-tenancy/tenancy"
)

// kind is what an instrument is.
type kind int

const (
	counter kind = iota
	upDown
	gauge
)

// figure is one instrument, and where its values are in a T.
type figure[T any] struct {
	kind             kind
	name, unit, help string
	parts            []part[T]
}

// part is one of a figure's values; an attribute tells it from the others, if
// there are others.
type part[T any] struct {
	attr attribute.KeyValue
	of   func(*T) int64
}

func one[T any](of func(*T) int64) []part[T] { return []part[T]{{of: of}} }

func (f *figure[T]) instrument(m metric.Meter) (metric.Int64Observable, error) {
	unit, help := metric.WithUnit(f.unit), metric.WithDescription(f.help)
	switch f.kind {
	case counter:
		return m.Int64ObservableCounter(f.name, unit, help)
	case upDown:
		return m.Int64ObservableUpDownCounter(f.name, unit, help)
	default:
		return m.Int64ObservableGauge(f.name, unit, help)
	}
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Names follow db.client.connection.* of the semantic conventions where there is
// one for the same thing:
// https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
var ofPlugin = []figure[tenancy.Stats]{
	{upDown, "tenancy.pool.max", "{pool}", "The limit of open pools.",
		one(func(s *tenancy.Stats) int64 { return int64(s.MaxPools) })},
	{upDown, "tenancy.pool.count", "{pool}", "Pools, by state.", []part[tenancy.Stats]{
		{stateKey.String("in_use"), func(s *tenancy.Stats) int64 { return int64(s.InUse) }},
		{stateKey.String("idle"), func(s *tenancy.Stats) int64 { return int64(s.Pools - s.InUse) }},
		{stateKey.String("opening"), func(s *tenancy.Stats) int64 { return int64(s.Opening) }},
		{stateKey.String("sweeping"), func(s *tenancy.Stats) int64 { return int64(s.Sweeping) }},
		{stateKey.String("draining"), func(s *tenancy.Stats) int64 { return int64(s.Draining) }},
	}},
	{upDown, "tenancy.connection.count", "{connection}", "Physical connections to tenants' databases.",
		one(func(s *tenancy.Stats) int64 { return int64(s.Conns) })},
	{counter, "tenancy.pool.hits", "{statement}", "Statements that found their pool open.",
		one(func(s *tenancy.Stats) int64 { return int64(s.Hits) })},
	{counter, "tenancy.pool.misses", "{statement}", "Statements that did not find their pool open.",
		one(func(s *tenancy.Stats) int64 { return int64(s.Misses) })},
	{counter, "tenancy.pool.opened", "{pool}", "Pools that were opened.",
		one(func(s *tenancy.Stats) int64 { return int64(s.Opened) })},
	{counter, "tenancy.pool.failed", "{pool}", "Pools that could not be opened.",
		one(func(s *tenancy.Stats) int64 { return int64(s.Failed) })},
	{counter, "tenancy.statement.refused", "{statement}", "Statements that were refused.",
		one(func(s *tenancy.Stats) int64 { return int64(s.Refused) })},
	{counter, "tenancy.replica.reads", "{statement}", "Statements that a replica has answered.",
		one(func(s *tenancy.Stats) int64 { return int64(s.ReplicaReads) })},
	{counter, "tenancy.replica.fallbacks", "{statement}", "Reads that went from a replica to the next or to the primary.",
		one(func(s *tenancy.Stats) int64 { return int64(s.ReplicaFallbacks) })},
}

var ofServer = []figure[tenancy.ServerStats]{
	{upDown, "tenancy.server.pool.count", "{pool}", "Open pools on the server, by role.", []part[tenancy.ServerStats]{
		{roleKey.String("primary"), func(s *tenancy.ServerStats) int64 { return int64(s.Pools - s.Replicas) }},
		{roleKey.String("replica"), func(s *tenancy.ServerStats) int64 { return int64(s.Replicas) }},
	}},
	{upDown, "tenancy.server.connection.max", "{connection}", "The budget: how many connections the process may have to the server.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.MaxConns) })},
	{upDown, "tenancy.server.connection.count", "{connection}", "Connections to the server, by state; used are those on their way out too.", []part[tenancy.ServerStats]{
		{stateKey.String("used"), func(s *tenancy.ServerStats) int64 { return int64(s.Conns - s.Idle - s.Dialing) }},
		{stateKey.String("idle"), func(s *tenancy.ServerStats) int64 { return int64(s.Idle) }},
		{stateKey.String("dialing"), func(s *tenancy.ServerStats) int64 { return int64(s.Dialing) }},
	}},
	{gauge, "tenancy.server.approximate", "1", "1 if it is not known exactly when connections are gone.",
		one(func(s *tenancy.ServerStats) int64 { return truth(s.Approximate) })},
	{upDown, "tenancy.server.waiting", "{caller}", "Callers that wait for a connection now.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.Waiting) })},
	{counter, "tenancy.server.waits", "{caller}", "Callers that had to wait for a connection.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.Waits) })},
	{counter, "tenancy.server.exhausted", "{caller}", "Callers that waited for a connection in vain.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.Exhausted) })},
	{counter, "tenancy.server.dials", "{attempt}", "Attempts to connect.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.Dials) })},
	{counter, "tenancy.server.dials_failed", "{attempt}", "Attempts to connect that failed.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.DialsFailed) })},
	{counter, "tenancy.server.saturated", "{attempt}", "How often the server itself had no connection left.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.Saturated) })},
	{counter, "tenancy.server.reclaimed", "{connection}", "Connections that were closed to make room for another tenant.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.Reclaimed) })},
	{counter, "tenancy.server.handed_over", "{connection}", "Connections that went from one caller to another of the same tenant.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.HandedOver) })},
	{gauge, "tenancy.server.down", "1", "1 if the server can't be reached: callers fail at once.",
		one(func(s *tenancy.ServerStats) int64 { return truth(s.Down) })},
	{counter, "tenancy.server.trips", "{trip}", "How often the server was found to be down.",
		one(func(s *tenancy.ServerStats) int64 { return int64(s.Trips) })},
}
