package tenancyotel_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/gorm-tenancy/tenancy"
	tenancyotel "github.com/gorm-tenancy/tenancy/contrib/otel"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// TestFigures compares all metrics of a plugin with what was done.
func TestFigures(t *testing.T) {
	db, plugin := open(t, tenancy.Config{Pools: tenancy.Limits{MaxPools: 1, MaxConnsPerServer: 8}}, "acme", "bravo")
	provider, reader := metering(t)
	registration, err := tenancyotel.Metrics(plugin, tenancyotel.Options{MeterProvider: provider})
	require.NoError(t, err)
	require.NoError(t, notes.Ask(db, "acme"))
	require.NoError(t, notes.Ask(db, "acme"))
	require.ErrorIs(t, notes.Ask(db, "nobody"), tenancy.ErrTenantNotFound)
	require.ErrorIs(t, db.Exec("SELECT 1").Error, tenancy.ErrNoTenant)
	require.NoError(t, plugin.Drain(t.Context(), "acme"))
	require.NoError(t, notes.Ask(db, "bravo"))
	notes.Settle(t, plugin)

	values, units := read(t, reader)
	require.Equal(t, map[string]float64{
		"tenancy.pool.max":                                                            1,
		"tenancy.pool.count{tenancy.state=idle}":                                      1,
		"tenancy.pool.count{tenancy.state=in_use}":                                    0,
		"tenancy.pool.count{tenancy.state=opening}":                                   0,
		"tenancy.pool.count{tenancy.state=sweeping}":                                  0,
		"tenancy.pool.count{tenancy.state=draining}":                                  0,
		"tenancy.connection.count":                                                    1,
		"tenancy.pool.hits":                                                           1,
		"tenancy.pool.misses":                                                         3,
		"tenancy.pool.opened":                                                         2,
		"tenancy.pool.failed":                                                         1,
		"tenancy.pool.evicted{tenancy.cause=capacity}":                                0,
		"tenancy.pool.evicted{tenancy.cause=idle}":                                    0,
		"tenancy.pool.evicted{tenancy.cause=evicted}":                                 1,
		"tenancy.pool.evicted{tenancy.cause=changed}":                                 0,
		"tenancy.pool.evicted{tenancy.cause=gone}":                                    0,
		"tenancy.pool.evicted{tenancy.cause=closed}":                                  0,
		"tenancy.pool.evicted{tenancy.cause=swept}":                                   0,
		"tenancy.statement.refused":                                                   1,
		"tenancy.replica.reads":                                                       0,
		"tenancy.replica.fallbacks":                                                   0,
		"tenancy.server.pool.count{tenancy.role=primary,tenancy.server=files}":        1,
		"tenancy.server.pool.count{tenancy.role=replica,tenancy.server=files}":        0,
		"tenancy.server.connection.max{tenancy.server=files}":                         8,
		"tenancy.server.connection.count{tenancy.server=files,tenancy.state=used}":    0,
		"tenancy.server.connection.count{tenancy.server=files,tenancy.state=idle}":    1,
		"tenancy.server.connection.count{tenancy.server=files,tenancy.state=dialing}": 0,
		"tenancy.server.approximate{tenancy.server=files}":                            1,
		"tenancy.server.waiting{tenancy.server=files}":                                0,
		"tenancy.server.waits{tenancy.server=files}":                                  0,
		"tenancy.server.wait_time{tenancy.server=files}":                              0,
		"tenancy.server.exhausted{tenancy.server=files}":                              0,
		"tenancy.server.dials{tenancy.server=files}":                                  2,
		"tenancy.server.dials_failed{tenancy.server=files}":                           0,
		"tenancy.server.saturated{tenancy.server=files}":                              0,
		"tenancy.server.reclaimed{tenancy.server=files}":                              0,
		"tenancy.server.handed_over{tenancy.server=files}":                            0,
		"tenancy.server.down{tenancy.server=files}":                                   0,
		"tenancy.server.trips{tenancy.server=files}":                                  0,
	}, values)
	require.Equal(t, "{connection}", units["tenancy.server.connection.count"])
	require.Equal(t, "s", units["tenancy.server.wait_time"])

	require.NoError(t, plugin.Close(t.Context()))
	values, _ = read(t, reader)
	require.EqualValues(t, 1, values["tenancy.pool.evicted{tenancy.cause=closed}"])

	require.NoError(t, registration.Unregister())
	values, _ = read(t, reader)
	require.Empty(t, values)
}

func TestScope(t *testing.T) {
	_, plugin := open(t, tenancy.Config{})
	provider, reader := metering(t)
	_, err := tenancyotel.Metrics(plugin, tenancyotel.Options{MeterProvider: provider})
	require.NoError(t, err)
	var out metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &out))
	require.Len(t, out.ScopeMetrics, 1)
	require.Equal(t, tenancyotel.ScopeName, out.ScopeMetrics[0].Scope.Name)
	require.NotEmpty(t, out.ScopeMetrics[0].Scope.Version)
}

func TestNoPlugin(t *testing.T) {
	_, err := tenancyotel.Metrics(nil, tenancyotel.Options{})
	require.ErrorContains(t, err, "tenancyotel: plugin is nil")
}

// TestTwoPlugins has two plugins in one provider, told apart by an attribute.
func TestTwoPlugins(t *testing.T) {
	provider, reader := metering(t)
	var last interface{ Unregister() error }
	for i, app := range []string{"one", "two"} {
		db, plugin := open(t, tenancy.Config{Pools: tenancy.Limits{MaxPools: i + 1}}, "acme")
		require.NoError(t, notes.Ask(db, "acme"))
		notes.Settle(t, plugin)
		attrs := []attribute.KeyValue{attribute.String("app", app)}
		registration, err := tenancyotel.Metrics(plugin, tenancyotel.Options{MeterProvider: provider, Attributes: attrs})
		require.NoError(t, err)
		attrs[0] = attribute.String("app", "changed later")
		last = registration
	}
	values, _ := read(t, reader)
	require.EqualValues(t, 1, values["tenancy.pool.max{app=one}"])
	require.EqualValues(t, 2, values["tenancy.pool.max{app=two}"])
	require.EqualValues(t, 1, values["tenancy.server.connection.count{app=two,tenancy.server=files,tenancy.state=idle}"])
	require.NoError(t, last.Unregister())
	values, _ = read(t, reader)
	require.Contains(t, values, "tenancy.pool.max{app=one}")
	require.NotContains(t, values, "tenancy.pool.max{app=two}")
}

// TestObserver holds a tenant's only connection, and counts who waits for it.
func TestObserver(t *testing.T) {
	provider, reader := metering(t)
	observer, err := tenancyotel.NewObserver(tenancyotel.Options{MeterProvider: provider})
	require.NoError(t, err)
	values, _ := read(t, reader)
	require.Contains(t, values, "tenancy.events{tenancy.event=server_down}")
	require.Zero(t, values["tenancy.events{tenancy.event=server_down}"])

	db, _ := open(t, tenancy.Config{Observer: observer,
		Pools: tenancy.Limits{MaxConnsPerTenant: 1, AcquireTimeout: 20 * time.Millisecond}}, "acme")
	tx := db.WithContext(tenant.Ctx(t.Context(), "acme")).Begin()
	require.NoError(t, tx.Error)
	require.ErrorIs(t, notes.Ask(db, "acme"), tenancy.ErrPoolExhausted)
	require.NoError(t, tx.Rollback().Error)
	observer.Observe(tenancy.Event{Kind: "of a newer plugin"})
	values, units := read(t, reader)
	require.EqualValues(t, 1, values["tenancy.events{tenancy.event=waited}"])
	require.EqualValues(t, 1, values["tenancy.events{tenancy.event=of a newer plugin}"])
	require.EqualValues(t, 1, values["tenancy.server.wait.duration{tenancy.server=files}"])
	require.Equal(t, "s", units["tenancy.server.wait.duration"])
}

// TestUnderLoad collects, twice at a time, while tenants come and go.
func TestUnderLoad(t *testing.T) {
	provider, reader := metering(t)
	observer, err := tenancyotel.NewObserver(tenancyotel.Options{MeterProvider: provider})
	require.NoError(t, err)
	ids := []string{"t0", "t1", "t2", "t3"}
	db, plugin := open(t, tenancy.Config{Observer: observer, Pools: tenancy.Limits{MaxPools: 2, MaxConnsPerServer: 2}}, ids...)
	registration, err := tenancyotel.Metrics(plugin, tenancyotel.Options{MeterProvider: provider,
		Attributes: []attribute.KeyValue{attribute.String("app", "one")}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var work, reads sync.WaitGroup
	for range 2 {
		reads.Go(func() {
			var out metricdata.ResourceMetrics
			for ctx.Err() == nil {
				if err := reader.Collect(context.Background(), &out); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range 4 {
		work.Go(func() {
			for i := range 40 {
				if err := notes.Ask(db, ids[(w+i)%len(ids)]); err != nil {
					t.Error(fmt.Errorf("%d: %w", i, err))
				}
			}
		})
	}
	work.Wait()
	require.NoError(t, registration.Unregister())
	cancel()
	reads.Wait()
}
