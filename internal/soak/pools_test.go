package soak

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

// pools: everything is short at once, while pools are evicted and drained all
// the time and statements are cancelled.
func (f *fleet) pools(t *testing.T) {
	const (
		maxPools, budget, perTenant = 3, 3, 2
		tenants, workers, rounds    = 12, 16, 75
	)
	a := f.open(t, tenancy.Limits{
		MaxPools:          maxPools,
		MaxConnsPerServer: budget,
		MaxConnsPerTenant: perTenant,
		AcquireTimeout:    patience,
	})
	ctx, cancel := context.WithTimeout(context.Background(), *soakFor+2*patience)
	defer cancel()
	pick := func() *customer { return f.tenants[rand.IntN(tenants)] }

	// The evictions follow the work, so that there are as many on any machine.
	turns := make(chan struct{}, workers)
	var evictors, wg sync.WaitGroup
	for range 2 {
		evictors.Go(func() {
			for range turns {
				if c := pick(); rand.IntN(2) == 0 {
					a.plugin.Evict(c.id)
				} else if err := a.plugin.Drain(ctx, c.id); err != nil {
					t.Errorf("drain %s: %v", c.id, err)
				}
			}
		})
	}
	began := time.Now()
	for range workers {
		wg.Go(func() {
			for i := 0; i < rounds || time.Since(began) < *soakFor; i++ {
				select {
				case turns <- struct{}{}: // if a turn is waiting, the evictor is busy anyhow
				default:
				}
				c := pick()
				do := a.work
				if rand.IntN(10) == 0 {
					do = a.cancelled
				}
				if err := do(ctx, c); err != nil {
					if ctx.Err() == nil {
						t.Errorf("%s: %v", c.id, err)
					}
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	close(turns)
	evictors.Wait()
	t.Logf("%d pieces of work in %s", workers*rounds, time.Since(began).Round(time.Millisecond))
	s := a.plugin.Stats()
	require.LessOrEqual(t, s.Pools, maxPools)
	require.Zero(t, s.InUse)
	require.Positive(t, s.Evicted[tenancy.CauseCapacity])
	require.Positive(t, s.Evicted[tenancy.CauseEvicted])
	a.close(budget)
}
