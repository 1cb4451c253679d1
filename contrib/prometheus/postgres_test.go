package tenancyprometheus_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	tenancyprometheus "github.com/gorm-tenancy/tenancy/contrib/prometheus"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// TestFaults has a server whose budget is taken, one that is dead, and one that
// is back.
func TestFaults(t *testing.T) {
	pg := pgtest.Start(t)
	observer := tenancyprometheus.NewObserver()
	static := tenancy.Static{}
	for _, id := range []string{"acme", "bravo"} {
		static[id] = tenancy.Database{DSN: pg.DSN(pg.CreateDatabase(t)), Server: "pg"}
	}
	db, plugin := notes.Open(t, postgres.Open(pg.DSN("postgres")), tenancy.Config{
		Resolver: static, Engine: tenancypg.Engine{}, Observer: observer,
		Pools: tenancy.Limits{MaxConnsPerServer: 1, AcquireTimeout: 100 * time.Millisecond},
	})
	reg := register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 2}), observer)

	err := db.WithContext(tenant.Ctx(t.Context(), "acme")).Transaction(func(*gorm.DB) error {
		require.ErrorIs(t, notes.Ask(db, "bravo"), tenancy.ErrPoolExhausted)
		return nil
	})
	require.NoError(t, err)
	got := values(t, reg)
	require.EqualValues(t, 1, got["tenancy_server_connections_max{pg}"])
	require.EqualValues(t, 1, got["tenancy_server_connections{pg}"])
	require.EqualValues(t, 1, got["tenancy_server_waits_total{pg}"])
	require.EqualValues(t, 1, got["tenancy_server_exhausted_total{pg}"])
	require.EqualValues(t, 1, got["tenancy_tenant_exhausted_total{pg,bravo}"])
	require.Zero(t, got["tenancy_tenant_exhausted_total{pg,acme}"])
	require.Zero(t, got["tenancy_server_approximate{pg}"])
	require.GreaterOrEqual(t, got["tenancy_server_wait_seconds_total{pg}"], .1)
	require.EqualValues(t, 1, got["tenancy_server_wait_duration_seconds{pg}"])
	require.EqualValues(t, 1, got["tenancy_events_total{waited}"])
	require.Zero(t, got["tenancy_server_down{pg}"])

	// until asks both tenants until the series have these values. The observer is
	// told after Stats shows it.
	until := func(down, downs, ups float64) {
		t.Helper()
		require.Eventually(t, func() bool {
			_, _ = notes.Ask(db, "acme"), notes.Ask(db, "bravo")
			got = values(t, reg)
			return got["tenancy_server_down{pg}"] == down &&
				got["tenancy_events_total{server_down}"] == downs && got["tenancy_events_total{server_up}"] == ups
		}, 30*time.Second, 10*time.Millisecond)
		require.EqualValues(t, 1, got["tenancy_server_trips_total{pg}"])
	}
	pg.Kill()
	until(1, 1, 0)
	require.GreaterOrEqual(t, got["tenancy_server_dials_failed_total{pg}"], 5.)
	pg.Restart()
	until(0, 1, 1)
}

// TestSaturated has a server that has no connection left itself.
func TestSaturated(t *testing.T) {
	full := pgtest.StartFull(t)
	db, plugin := notes.Open(t, postgres.Open(pgtest.Shared(t).DSN("postgres")), tenancy.Config{
		Resolver: tenancy.Static{"acme": {DSN: full.DSN("postgres"), Server: "pg"}}, Engine: tenancypg.Engine{},
		Pools: tenancy.Limits{AcquireTimeout: 100 * time.Millisecond},
	})
	require.ErrorIs(t, notes.Ask(db, "acme"), tenancy.ErrPoolExhausted)
	got := values(t, register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{})))
	require.Positive(t, got["tenancy_server_saturated_total{pg}"])
	require.Zero(t, got["tenancy_server_trips_total{pg}"])
}
