package tenancystatus

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

func TestRing(t *testing.T) {
	h := newHistory(4, 10)
	require.Empty(t, h.between(time.Time{}, after(99)))
	for i := range 11 {
		h.add(after(i), tenancy.Stats{Hits: uint64(i)})
		got := h.between(time.Time{}, after(99))
		require.Len(t, got, min(i+1, 4))
		for j, s := range got {
			require.Equal(t, after(i-len(got)+1+j), s.Time, "the oldest first")
			require.EqualValues(t, i-len(got)+1+j, s.HitsTotal)
		}
	}
	require.Len(t, h.between(after(9), after(99)), 2, "not older than asked for")
	require.Len(t, h.between(time.Time{}, after(9)), 3, "nor later")
	require.Len(t, h.ring, 4)
}

// What between returns stays as it is when its place in the ring is written over.
func TestCopies(t *testing.T) {
	h := newHistory(1, 10)
	h.add(after(0), tenancy.Stats{Servers: []tenancy.ServerStats{{Server: "x", Conns: 1}}})
	got := h.between(time.Time{}, after(99))
	h.add(after(1), tenancy.Stats{Servers: []tenancy.ServerStats{{Server: "y", Conns: 2}}})
	require.Equal(t, "x", got[0].Servers[0].Server)
}

// A ring that is full takes no more memory, whatever comes.
func TestMemoryIsBounded(t *testing.T) {
	h := newHistory(3, 4)
	var stats tenancy.Stats
	for i := range 100 {
		stats.Servers = append(stats.Servers, tenancy.ServerStats{Server: fmt.Sprint(i), Waiting: 1})
		h.add(after(i), stats)
	}
	// The sizes are in the documents.
	require.LessOrEqual(t, reflect.TypeFor[ServerSample]().Size(), uintptr(110))
	require.LessOrEqual(t, reflect.TypeFor[Sample]().Size(), uintptr(150))
	for _, s := range h.ring {
		require.LessOrEqual(t, cap(s.Servers), 4)
	}
	s := h.between(time.Time{}, after(99))[2]
	require.Len(t, s.Servers, 4)
	require.Equal(t, 100, s.ServersKnown)
	require.Equal(t, 100, s.Waiting, "those of all servers")
	require.False(t, s.complete())
	for _, row := range s.Servers {
		require.Equal(t, &row, s.server(row.Server))
	}
	require.Nil(t, s.server("none"))
}

func TestHardestFirst(t *testing.T) {
	all := []tenancy.ServerStats{{Server: "calm"}, {Server: "busy", Conns: 9}, {Server: "down", Down: true}, {Server: "waits", Waiting: 1, Conns: 2}, {Server: "a", Conns: 9}}
	var names []string
	for _, s := range hardest(all, 4) {
		names = append(names, s.Server)
	}
	require.Equal(t, []string{"down", "waits", "a", "busy"}, names)
	require.Equal(t, "calm", all[0].Server, "what it was given is as it was")
}
