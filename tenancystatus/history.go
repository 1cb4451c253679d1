package tenancystatus

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// history is a ring of samples. Its memory does not grow: what fell out is
// written over.
type history struct {
	servers int // remembered in each sample

	mu   sync.Mutex
	ring []Sample // of fixed length
	next int      // where the next one goes
	n    int      // how many there are
}

func newHistory(samples, servers int) *history {
	return &history{servers: servers, ring: make([]Sample, samples)}
}

// add notes s, as of now.
func (h *history) add(now time.Time, s tenancy.Stats) {
	rows := hardest(s.Servers, h.servers)
	h.mu.Lock()
	defer h.mu.Unlock()
	slot := &h.ring[h.next]
	slot.fill(now, s, rows)
	h.next = (h.next + 1) % len(h.ring)
	h.n = min(h.n+1, len(h.ring))
}

// between returns the samples of a time, the oldest first. They are the caller's.
// One of later is there if the clock was set back.
func (h *history) between(from, to time.Time) []Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Sample, 0, h.n)
	for i := range h.n {
		s := h.ring[(h.next-h.n+i+len(h.ring))%len(h.ring)]
		if s.Time.Before(from) || s.Time.After(to) {
			continue
		}
		s.Servers = append([]ServerSample{}, s.Servers...) // not nil: JSON's is null
		out = append(out, s)
	}
	return out
}

// hardest returns the n servers that an operator must see first: those that are
// down, then those that callers wait for, then those with most connections.
func hardest(servers []tenancy.ServerStats, n int) []tenancy.ServerStats {
	down := func(s tenancy.ServerStats) int {
		if s.Down {
			return 1
		}
		return 0
	}
	out := slices.Clone(servers)
	slices.SortFunc(out, func(a, b tenancy.ServerStats) int {
		return cmp.Or(cmp.Compare(down(b), down(a)), cmp.Compare(b.Waiting, a.Waiting),
			cmp.Compare(b.Conns, a.Conns), strings.Compare(a.Server, b.Server))
	})
	return out[:min(n, len(out))]
}

// fill makes s of stats. It keeps the memory of its rows.
func (s *Sample) fill(now time.Time, stats tenancy.Stats, servers []tenancy.ServerStats) {
	rows := s.Servers[:0]
	*s = Sample{
		Time:            now.UTC(),
		PoolsOpen:       stats.Pools,
		PoolsInUse:      stats.InUse,
		Conns:           stats.Conns,
		StatementsTotal: stats.Hits + stats.Misses,
		HitsTotal:       stats.Hits,
		OpenedTotal:     stats.Opened,
		OpenFailedTotal: stats.Failed,
		RefusedTotal:    stats.Refused,
		ServersKnown:    len(stats.Servers),
	}
	for _, n := range stats.Evicted {
		s.EvictedTotal += n
	}
	for _, server := range stats.Servers { // of all, also those that are not remembered
		s.Waiting += server.Waiting
	}
	for _, server := range servers {
		rows = append(rows, ServerSample{
			Server:           server.Server,
			Down:             server.Down,
			MaxConns:         server.MaxConns,
			Conns:            server.Conns,
			ConnsIdle:        server.Idle,
			Waiting:          server.Waiting,
			WaitsTotal:       server.Waits,
			WaitSecondsTotal: server.WaitTime.Seconds(),
			ExhaustedTotal:   server.Exhausted,
			SaturatedTotal:   server.Saturated,
			DialsTotal:       server.Dials,
			DialsFailedTotal: server.DialsFailed,
		})
	}
	slices.SortFunc(rows, func(a, b ServerSample) int { return strings.Compare(a.Server, b.Server) })
	s.Servers = rows
}

// server returns the row of the server called name, nil if it has none.
func (s *Sample) server(name string) *ServerSample {
	i, ok := slices.BinarySearchFunc(s.Servers, name, func(row ServerSample, name string) int {
		return strings.Compare(row.Server, name)
	})
	if !ok {
		return nil
	}
	return &s.Servers[i]
}

// complete reports whether s has all servers that were known: one that is missing
// was not there.
func (s *Sample) complete() bool { return len(s.Servers) == s.ServersKnown }

// grown is how much a counter has grown from one sample to a later one. A server
// that was forgotten and came back starts from 0 again.
func grown[T uint64 | float64](from, to T) T {
	if to < from {
		return to
	}
	return to - from
}
