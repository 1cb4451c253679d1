package tenancy_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

func TestStatsAndEvents(t *testing.T) {
	var (
		mu     sync.Mutex
		events []tenancy.Event
	)
	e := openSQLite(t, withConfig(func(c *tenancy.Config) {
		c.Pools.MaxPools = 1
		c.Observer = tenancy.ObserverFunc(func(ev tenancy.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, ev)
		})
	}))
	of := func(kind tenancy.EventKind) (found []tenancy.Event) {
		mu.Lock()
		defer mu.Unlock()
		for _, ev := range events {
			if ev.Kind == kind {
				found = append(found, ev)
			}
		}
		return found
	}
	require.Equal(t, tenancy.Stats{MaxPools: 1, Evicted: map[tenancy.Cause]uint64{}}, e.plugin.Stats())

	require.NoError(t, e.in(idA).First(&Order{}).Error)
	require.NoError(t, e.in(idA).First(&Order{}).Error)
	require.Error(t, e.db.First(&Order{}).Error)
	require.Error(t, e.db.Begin().Error)
	require.Error(t, e.in("nobody").First(&Order{}).Error)
	s := e.plugin.Stats()
	require.Equal(t, 1, s.Pools)
	require.Equal(t, 1, s.Conns)
	require.Zero(t, s.InUse)
	require.EqualValues(t, 1, s.Opened)
	require.EqualValues(t, 1, s.Failed)
	require.EqualValues(t, 1, s.Hits, "an id that nobody knows has pushed no one out")
	require.EqualValues(t, 2, s.Misses)
	require.EqualValues(t, 2, s.Refused)
	require.Len(t, of(tenancy.EventRefused), 2)
	require.ErrorIs(t, of(tenancy.EventRefused)[0].Err, tenancy.ErrNoTenant)
	// Who waited for the opening is told before the observer is.
	seen := func(kind tenancy.EventKind, n int) {
		t.Helper()
		require.Eventually(t, func() bool { return len(of(kind)) == n }, 10*time.Second, time.Millisecond)
	}
	seen(tenancy.EventFailed, 1)
	require.Equal(t, "nobody", of(tenancy.EventFailed)[0].Tenant)
	require.ErrorIs(t, of(tenancy.EventFailed)[0].Err, tenancy.ErrTenantNotFound)

	require.NoError(t, e.in(idB).First(&Order{}).Error)
	require.True(t, e.plugin.Evict(idB))
	require.False(t, e.plugin.Evict(idB))
	require.NoError(t, e.plugin.Close(context.Background()))
	s = e.plugin.Stats()
	require.Equal(t, map[tenancy.Cause]uint64{tenancy.CauseCapacity: 1, tenancy.CauseEvicted: 1}, s.Evicted)
	require.Zero(t, s.Pools+s.Draining+s.Opening+s.Conns)
	seen(tenancy.EventEvicted, 2)
	seen(tenancy.EventOpened, 2)
	evicted := map[string]tenancy.Cause{}
	for _, ev := range of(tenancy.EventEvicted) {
		evicted[ev.Tenant] = ev.Cause
	}
	require.Equal(t, map[string]tenancy.Cause{idA: tenancy.CauseCapacity, idB: tenancy.CauseEvicted}, evicted)
}
