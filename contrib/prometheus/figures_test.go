package tenancyprometheus_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	tenancyprometheus "github.com/gorm-tenancy/tenancy/contrib/prometheus"
	"github.com/gorm-tenancy/tenancy/internal/notes"
)

// TestFigures compares all metrics of a plugin with what was done.
func TestFigures(t *testing.T) {
	db, plugin := openFiles(t, notes.Files(t, "acme", "bravo"), func(c *tenancy.Config) {
		c.Pools.MaxPools = 1
		c.Pools.MaxConnsPerServer = 8
	})
	require.NoError(t, notes.Ask(db, "acme"))
	require.NoError(t, notes.Ask(db, "acme"))
	require.ErrorIs(t, notes.Ask(db, "nobody"), tenancy.ErrTenantNotFound)
	require.ErrorIs(t, db.Exec("SELECT 1").Error, tenancy.ErrNoTenant)
	require.NoError(t, plugin.Drain(t.Context(), "acme"))
	require.NoError(t, notes.Ask(db, "bravo"))
	notes.Settle(t, plugin)

	c := tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 10})
	problems, err := testutil.CollectAndLint(c)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.NoError(t, testutil.CollectAndCompare(c, strings.NewReader(`
# HELP tenancy_connections Physical connections to tenants' databases.
# TYPE tenancy_connections gauge
tenancy_connections 1
# HELP tenancy_pool_hits_total Statements that found their pool open.
# TYPE tenancy_pool_hits_total counter
tenancy_pool_hits_total 1
# HELP tenancy_pool_misses_total Statements that did not find their pool open.
# TYPE tenancy_pool_misses_total counter
tenancy_pool_misses_total 3
# HELP tenancy_pools Tenants whose pool is open.
# TYPE tenancy_pools gauge
tenancy_pools 1
# HELP tenancy_pools_draining Retired pools that still have connections.
# TYPE tenancy_pools_draining gauge
tenancy_pools_draining 0
# HELP tenancy_pools_evicted_total Pools that were retired, by cause.
# TYPE tenancy_pools_evicted_total counter
tenancy_pools_evicted_total{cause="capacity"} 0
tenancy_pools_evicted_total{cause="changed"} 0
tenancy_pools_evicted_total{cause="closed"} 0
tenancy_pools_evicted_total{cause="evicted"} 1
tenancy_pools_evicted_total{cause="gone"} 0
tenancy_pools_evicted_total{cause="idle"} 0
tenancy_pools_evicted_total{cause="swept"} 0
# HELP tenancy_pools_failed_total Pools that could not be opened.
# TYPE tenancy_pools_failed_total counter
tenancy_pools_failed_total 1
# HELP tenancy_pools_in_use Open pools with a call in progress.
# TYPE tenancy_pools_in_use gauge
tenancy_pools_in_use 0
# HELP tenancy_pools_max The limit of open pools.
# TYPE tenancy_pools_max gauge
tenancy_pools_max 1
# HELP tenancy_pools_opened_total Pools that were opened.
# TYPE tenancy_pools_opened_total counter
tenancy_pools_opened_total 2
# HELP tenancy_pools_opening Pools that are being opened.
# TYPE tenancy_pools_opening gauge
tenancy_pools_opening 0
# HELP tenancy_pools_sweeping Pools that are open for a turn in Each.
# TYPE tenancy_pools_sweeping gauge
tenancy_pools_sweeping 0
# HELP tenancy_replica_fallbacks_total Reads that went from a replica to the next or to the primary.
# TYPE tenancy_replica_fallbacks_total counter
tenancy_replica_fallbacks_total 0
# HELP tenancy_replica_reads_total Statements that a replica has answered.
# TYPE tenancy_replica_reads_total counter
tenancy_replica_reads_total 0
# HELP tenancy_server_approximate 1 if it is not known exactly when connections are gone.
# TYPE tenancy_server_approximate gauge
tenancy_server_approximate{server="files"} 1
# HELP tenancy_server_connections Connections to the server: in use, idle, being dialled or on their way out.
# TYPE tenancy_server_connections gauge
tenancy_server_connections{server="files"} 1
# HELP tenancy_server_connections_dialing Connections to the server that are being dialled.
# TYPE tenancy_server_connections_dialing gauge
tenancy_server_connections_dialing{server="files"} 0
# HELP tenancy_server_connections_idle Connections to the server that are idle.
# TYPE tenancy_server_connections_idle gauge
tenancy_server_connections_idle{server="files"} 1
# HELP tenancy_server_connections_max The budget: how many connections the process may have to the server.
# TYPE tenancy_server_connections_max gauge
tenancy_server_connections_max{server="files"} 8
# HELP tenancy_server_dials_failed_total Attempts to connect that failed.
# TYPE tenancy_server_dials_failed_total counter
tenancy_server_dials_failed_total{server="files"} 0
# HELP tenancy_server_dials_total Attempts to connect.
# TYPE tenancy_server_dials_total counter
tenancy_server_dials_total{server="files"} 2
# HELP tenancy_server_down 1 if the server can't be reached: callers fail at once.
# TYPE tenancy_server_down gauge
tenancy_server_down{server="files"} 0
# HELP tenancy_server_exhausted_total Callers that waited for a connection in vain.
# TYPE tenancy_server_exhausted_total counter
tenancy_server_exhausted_total{server="files"} 0
# HELP tenancy_server_handed_over_total Connections that went from one caller to another of the same tenant.
# TYPE tenancy_server_handed_over_total counter
tenancy_server_handed_over_total{server="files"} 0
# HELP tenancy_server_pools Open pools on the server, those for replicas too.
# TYPE tenancy_server_pools gauge
tenancy_server_pools{server="files"} 1
# HELP tenancy_server_reclaimed_total Connections that were closed to make room for another tenant.
# TYPE tenancy_server_reclaimed_total counter
tenancy_server_reclaimed_total{server="files"} 0
# HELP tenancy_server_replica_pools Open pools on the server that are for replicas.
# TYPE tenancy_server_replica_pools gauge
tenancy_server_replica_pools{server="files"} 0
# HELP tenancy_server_saturated_total How often the server itself had no connection left.
# TYPE tenancy_server_saturated_total counter
tenancy_server_saturated_total{server="files"} 0
# HELP tenancy_server_trips_total How often the server was found to be down.
# TYPE tenancy_server_trips_total counter
tenancy_server_trips_total{server="files"} 0
# HELP tenancy_server_wait_seconds_total The sum of the waits for a connection.
# TYPE tenancy_server_wait_seconds_total counter
tenancy_server_wait_seconds_total{server="files"} 0
# HELP tenancy_server_waiting Callers that wait for a connection now.
# TYPE tenancy_server_waiting gauge
tenancy_server_waiting{server="files"} 0
# HELP tenancy_server_waits_total Callers that had to wait for a connection.
# TYPE tenancy_server_waits_total counter
tenancy_server_waits_total{server="files"} 0
# HELP tenancy_statements_refused_total Statements that were refused.
# TYPE tenancy_statements_refused_total counter
tenancy_statements_refused_total 1
# HELP tenancy_tenant_connections The tenant's connections to the server.
# TYPE tenancy_tenant_connections gauge
tenancy_tenant_connections{server="files",tenant="bravo"} 1
# HELP tenancy_tenant_connections_idle The tenant's connections to the server that are idle.
# TYPE tenancy_tenant_connections_idle gauge
tenancy_tenant_connections_idle{server="files",tenant="bravo"} 1
# HELP tenancy_tenant_connections_max How many connections the tenant may have to the server.
# TYPE tenancy_tenant_connections_max gauge
tenancy_tenant_connections_max{server="files",tenant="bravo"} 4
# HELP tenancy_tenant_exhausted_total Those that waited in vain, since the pool was opened.
# TYPE tenancy_tenant_exhausted_total counter
tenancy_tenant_exhausted_total{server="files",tenant="bravo"} 0
# HELP tenancy_tenant_wait_seconds_total The sum of their waits, since the pool was opened.
# TYPE tenancy_tenant_wait_seconds_total counter
tenancy_tenant_wait_seconds_total{server="files",tenant="bravo"} 0
# HELP tenancy_tenant_waiting The tenant's callers that wait for a connection now.
# TYPE tenancy_tenant_waiting gauge
tenancy_tenant_waiting{server="files",tenant="bravo"} 0
# HELP tenancy_tenant_waits_total The tenant's callers that had to wait for a connection, since its pool was opened.
# TYPE tenancy_tenant_waits_total counter
tenancy_tenant_waits_total{server="files",tenant="bravo"} 0
`)))
}
