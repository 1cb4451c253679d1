package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// maxConnections of the server: enough for the budget, the backends that are
// about to end, and the tests' own.
const maxConnections = 60

// TestFleet shares few connections to one server among many tenants. Making
// their databases takes longer than most of what is tested, so all of it is
// done with the same ones.
func TestFleet(t *testing.T) {
	f := newFleet(t, 300, startServer(t, pgtest.MaxConns(maxConnections)))
	for _, test := range []struct {
		name string
		run  func(*fleet, *testing.T)
	}{
		{"load", (*fleet).load},
		{"hold and wait", (*fleet).holdAndWait},
		{"many tenants", (*fleet).manyTenants},
		{"pools", (*fleet).pools},
		{"one tenant", (*fleet).oneTenant},
		{"saturated", (*fleet).saturated},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(f, t) })
	}
	f.verify(t, true)
}

// load: callers that want no more connections at once than there are all get
// one, whatever was cancelled, and however long it takes until the server
// hears of it.
func (f *fleet) load(t *testing.T) {
	const (
		budget  = 20
		singles = 16 // workers that hold one connection
		doubles = 2  // and two: Rows of one tenant over the work of another
		pieces  = 3000
		blocks  = 3 // times that cancel requests are blocked
	)
	a := f.open(t, tenancy.Limits{MaxConnsPerServer: budget, AcquireTimeout: patience})
	ctx, cancel := context.WithTimeout(context.Background(), *soakFor+2*patience)
	defer cancel()
	watch := watchBackends(t, f.clusters[0], budget)

	var (
		done atomic.Int64
		stop = make(chan struct{}) // closed when it was enough
		more = make(chan struct{}, 1)
		wg   sync.WaitGroup
	)
	worker := func(cancels bool, work func(c, other *customer) error) {
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, other := f.pick(), f.pick()
			var err error
			if cancels && rand.IntN(4) == 0 {
				err = a.cancelled(ctx, c)
			} else {
				err = work(c, other)
			}
			if err != nil {
				if ctx.Err() == nil { // else it is because of the first one
					t.Errorf("%s: %v", c.id, err)
				}
				cancel()
				return
			}
			done.Add(1)
			select {
			case more <- struct{}{}:
			default:
			}
		}
	}
	for range singles {
		wg.Go(func() { worker(true, func(c, _ *customer) error { return a.work(ctx, c) }) })
	}
	for range doubles {
		wg.Go(func() { worker(false, func(c, other *customer) error { return a.workOverRows(ctx, c, other) }) })
	}

	began := time.Now()
	// reach waits until n pieces of work are done.
	reach := func(n int64) {
		for done.Load() < n {
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}
	for round := int64(1); ctx.Err() == nil; round++ {
		reach(round * pieces / (blocks + 1))
		if *soakFor > 0 && time.Since(began) > *soakFor || *soakFor == 0 && round > blocks {
			break
		}
		// A third of the connections is stuck, cancelled but not gone, and the
		// rest goes on without them.
		open := a.wire.block()
		if err := a.wire.await(ctx, func() bool { return a.wire.blocked >= budget/3 }); err != nil {
			t.Errorf("waiting for cancel requests: %v", err)
		}
		open()
	}
	close(stop)
	wg.Wait()
	took := time.Since(began)
	t.Logf("%d pieces of work in %s: %.0f/s", done.Load(), took.Round(time.Millisecond), float64(done.Load())/took.Seconds())
	watch.check(t, budget)
	s := a.plugin.Stats().Servers[0]
	require.Zero(t, s.Trips)
	require.Positive(t, s.Reclaimed)
	a.close(budget)
}

// pick is a tenant: every second time one of a few.
func (f *fleet) pick() *customer {
	if rand.IntN(2) == 0 {
		return f.tenants[rand.IntN(min(10, len(f.tenants)))]
	}
	return f.tenants[rand.IntN(len(f.tenants))]
}

// holdAndWait: callers that hold one connection and want a second one, all of
// them at once, can't all have it. They are told so in time, and all is well
// again when they have let go.
func (f *fleet) holdAndWait(t *testing.T) {
	const budget, timeout = 4, time.Second
	a := f.open(t, tenancy.Limits{MaxConnsPerServer: budget, AcquireTimeout: timeout})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	for round := range 2 {
		var holding, wg sync.WaitGroup
		holding.Add(budget)
		errs := make(chan error, budget)
		for i := range budget {
			first, second := f.tenants[i], f.tenants[budget+i]
			wg.Go(func() {
				err := a.in(ctx, first).Transaction(func(tx *gorm.DB) error {
					err := tx.Create(&Item{Tenant: first.id, Note: lost}).Error
					holding.Done()
					if err != nil {
						return err
					}
					holding.Wait() // until nobody else can have one
					began := time.Now()
					err = a.read(ctx, second)
					if took := time.Since(began); took > timeout+5*time.Second { // it is done by a timer
						err = fmt.Errorf("took %s: %w", took, err)
					}
					return errors.Join(errRollback, err)
				})
				errs <- err
			})
		}
		wg.Wait()
		close(errs)
		refused := 0
		for err := range errs {
			require.ErrorIs(t, err, errRollback)
			if errors.Is(err, tenancy.ErrPoolExhausted) {
				require.ErrorContains(t, err, "4 connections")
				refused++
			} else {
				// Who was refused first has let go for this one.
				require.Equal(t, errRollback.Error(), err.Error())
			}
			require.NotContains(t, err.Error(), "took")
		}
		require.Positive(t, refused, "round %d", round)

		// With the default budget of hold-and-wait, callers x (connections of
		// each - 1) + 1, it would have been enough.
		var fine sync.WaitGroup
		for i := range budget - 1 {
			fine.Go(func() {
				if err := a.workOverRows(ctx, f.tenants[i], f.tenants[budget+i]); err != nil {
					t.Errorf("after the wait: %v", err)
				}
			})
		}
		fine.Wait()
	}
	s := a.plugin.Stats().Servers[0]
	require.Positive(t, s.Exhausted)
	require.Zero(t, s.Trips)
	a.close(budget)
}
