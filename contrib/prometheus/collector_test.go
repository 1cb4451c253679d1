package tenancyprometheus_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	tenancyprometheus "github.com/gorm-tenancy/tenancy/contrib/prometheus"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// TestFigures compares all metrics of a plugin with what was done.
func TestFigures(t *testing.T) {
	db, plugin := openFiles(t, files(t, "acme", "bravo"), func(c *tenancy.Config) {
		c.Pools.MaxPools = 1
		c.Pools.MaxConnsPerServer = 8
	})
	require.NoError(t, ask(db, "acme"))
	require.NoError(t, ask(db, "acme"))
	require.ErrorIs(t, ask(db, "nobody"), tenancy.ErrTenantNotFound)
	require.ErrorIs(t, db.Exec("SELECT 1").Error, tenancy.ErrNoTenant)
	require.NoError(t, plugin.Drain(t.Context(), "acme"))
	require.NoError(t, ask(db, "bravo"))
	settle(t, plugin)

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

func TestBeforeUseAndAfterClose(t *testing.T) {
	plugin := tenancy.New(tenancy.Config{Resolver: files(t, "acme")})
	reg := register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 1}))
	require.EqualValues(t, 1000, values(t, reg)["tenancy_pools_max"])

	db, plugin := openFiles(t, files(t, "acme"), nil)
	reg = register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 1}))
	require.NoError(t, ask(db, "acme"))
	require.EqualValues(t, 1, values(t, reg)["tenancy_tenant_connections{files,acme}"])
	require.NoError(t, plugin.Close(t.Context()))
	got := values(t, reg)
	require.EqualValues(t, 1, got["tenancy_pools_evicted_total{closed}"])
	require.Zero(t, got["tenancy_pools"]+got["tenancy_connections"]+got["tenancy_server_connections{files}"])
	require.Contains(t, got, "tenancy_server_connections{files}", "what was counted is not forgotten")
	require.NotContains(t, got, "tenancy_tenant_connections{files,acme}")
}

func TestBadInput(t *testing.T) {
	_, plugin := openFiles(t, files(t), nil)
	for want, c := range map[string]prometheus.Collector{
		"tenancyprometheus: plugin is nil: pass what tenancy.New returned":  tenancyprometheus.NewCollector(nil, tenancyprometheus.Options{}),
		"tenancyprometheus: Options.Tenants is -1: it must not be negative": tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: -1}),
	} {
		reg := prometheus.NewRegistry()
		require.ErrorContains(t, reg.Register(c), want)

		// Nor is it a panic where nobody looked at the error.
		metrics := make(chan prometheus.Metric, 1)
		c.Collect(metrics)
		require.ErrorContains(t, (<-metrics).Write(nil), want)
	}
}

// TestTwoPlugins has two plugins in one registry: with the same names it is
// Prometheus's own error, with a label each it works.
func TestTwoPlugins(t *testing.T) {
	_, one := openFiles(t, files(t, "acme"), func(c *tenancy.Config) { c.Pools.MaxPools = 1 })
	_, two := openFiles(t, files(t, "acme"), func(c *tenancy.Config) { c.Pools.MaxPools = 2 })
	reg := register(t, tenancyprometheus.NewCollector(one, tenancyprometheus.Options{}))
	var already prometheus.AlreadyRegisteredError
	require.ErrorAs(t, reg.Register(tenancyprometheus.NewCollector(two, tenancyprometheus.Options{})), &already)

	reg = prometheus.NewPedanticRegistry()
	for app, plugin := range map[string]*tenancy.Plugin{"one": one, "two": two} {
		labelled := prometheus.WrapRegistererWith(prometheus.Labels{"app": app}, reg)
		require.NoError(t, labelled.Register(tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{})))
		require.NoError(t, labelled.Register(tenancyprometheus.NewObserver()))
	}
	got := values(t, reg)
	require.EqualValues(t, 1, got["tenancy_pools_max{one}"])
	require.EqualValues(t, 2, got["tenancy_pools_max{two}"])
}

// TestServerNames has servers that are called as nobody would.
func TestServerNames(t *testing.T) {
	static := tenancy.Static{}
	names := []string{"db1:5432", "/var/run/postgresql", "(unnamed)", "\xff", `"\xff"`, "a\xfe", "a\ufffd", "line\nbreak",
		`back\slash`, `"quoted"`, "zürich", "{x=\"y\"}", "\x00", " ", strings.Repeat("long", 1000)}
	for i, name := range names {
		static[fmt.Sprint("t", i)] = tenancy.Database{DSN: file(t, "db"), Server: name}
	}
	observer := tenancyprometheus.NewObserver()
	db, plugin := openFiles(t, static, func(c *tenancy.Config) { c.Observer = observer })
	reg := register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 100}), observer)
	for id := range static {
		require.NoError(t, ask(db, id))
	}
	for _, name := range names { // as if somebody had waited there
		observer.Observe(tenancy.Event{Kind: tenancy.EventWaited, Server: name})
	}
	page := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(page.Body)
	require.NoError(t, err)
	of := map[string]int{}
	for name, family := range families {
		of[name] = len(family.GetMetric())
	}
	require.Equal(t, len(names), of["tenancy_server_connections"])
	require.Equal(t, len(names), of["tenancy_server_wait_duration_seconds"])
	require.Equal(t, len(names), of["tenancy_tenant_connections"])
	got := values(t, reg)
	require.EqualValues(t, 1, got["tenancy_server_connections{db1:5432}"])
	require.EqualValues(t, 1, got[`tenancy_server_connections{"\xff"}`])
	require.EqualValues(t, 1, got[`tenancy_server_connections{"\"\\xff\""}`])
}

// unnamed opens files, and can't say where they are.
type unnamed struct{ tenancy.Engine }

func (unnamed) Server(string) string { return "" }

func TestUnnamedServer(t *testing.T) {
	db, plugin := openFiles(t, tenancy.Static{"acme": {DSN: file(t, "acme")}}, func(c *tenancy.Config) { c.Engine = unnamed{c.Engine} })
	require.NoError(t, ask(db, "acme"))
	got := values(t, register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 1})))
	require.EqualValues(t, 1, got["tenancy_server_connections{(unnamed)}"])
	require.EqualValues(t, 1, got["tenancy_tenant_connections{(unnamed),acme}"])
}

// TestReplicas has a tenant with two replicas on one server: one series.
func TestReplicas(t *testing.T) {
	dsn := file(t, "acme")
	db, plugin := openFiles(t, tenancy.Static{"acme": {DSN: dsn, Server: "files", Replicas: []tenancy.Database{
		{DSN: dsn + "?mode=ro", Server: "copies"}, {DSN: dsn + "?mode=ro&_pragma=query_only(1)", Server: "copies", MaxConns: 3},
	}}}, func(c *tenancy.Config) { c.ReplicaPolicy = dbresolver.StrictRoundRobinPolicy() })
	reg := register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 10}))
	ctx := tenant.Ctx(t.Context(), "acme")
	var n int
	require.NoError(t, db.WithContext(ctx).Exec("CREATE TABLE orders (id integer)").Error)
	for range 4 {
		require.NoError(t, db.WithContext(ctx).Clauses(dbresolver.Read).Raw("SELECT count(*) FROM orders").Scan(&n).Error)
	}
	got := values(t, reg)
	require.EqualValues(t, 4, got["tenancy_replica_reads_total"])
	require.EqualValues(t, 2, got["tenancy_server_replica_pools{copies}"])
	require.EqualValues(t, 1, got["tenancy_tenant_connections{files,acme}"])
	require.EqualValues(t, 2, got["tenancy_tenant_connections{copies,acme}"])
	require.EqualValues(t, 7, got["tenancy_tenant_connections_max{copies,acme}"])
}

// TestTenantsBound counts series: no more than Options.Tenants of each metric.
func TestTenantsBound(t *testing.T) {
	var ids []string
	for i := range 9 {
		ids = append(ids, fmt.Sprint("t", i))
	}
	db, plugin := openFiles(t, files(t, ids...), nil)
	for _, id := range ids {
		require.NoError(t, ask(db, id))
	}
	// The one that has more connections is among them.
	require.NoError(t, tenancy.Conn(tenant.Ctx(t.Context(), "t7"), db, func(*sql.Conn) error {
		require.NoError(t, ask(db, "t7"))
		for _, n := range []int{0, 1, 3, 9, 1 << 40} {
			got := values(t, register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: n})))
			of := map[string]int{}
			for series := range got {
				if strings.HasPrefix(series, "tenancy_tenant_") {
					of[series[:strings.IndexByte(series, '{')]]++
				}
			}
			want := 0
			if n > 0 {
				want = 7
				require.EqualValues(t, 2, got["tenancy_tenant_connections{files,t7}"])
			}
			require.Len(t, of, want)
			for name, series := range of {
				require.Equal(t, min(n, 9), series, name)
			}
		}
		return nil
	}))
}

// TestScrapesUnderLoad scrapes while tenants come and go.
func TestScrapesUnderLoad(t *testing.T) {
	var ids []string
	for i := range 8 {
		ids = append(ids, fmt.Sprint("t", i))
	}
	observer := tenancyprometheus.NewObserver()
	db, plugin := openFiles(t, files(t, ids...), func(c *tenancy.Config) {
		c.Observer = observer
		c.Pools = tenancy.Limits{MaxPools: 3, MaxConnsPerServer: 2, MaxConnsPerTenant: 1}
	})
	reg := register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 4}), observer)
	ctx, cancel := context.WithCancel(t.Context())
	var work, scrapes sync.WaitGroup
	for range 2 {
		scrapes.Go(func() {
			for ctx.Err() == nil {
				if _, err := reg.Gather(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range 6 {
		work.Go(func() {
			for i := range 40 {
				id := ids[(w+i)%len(ids)]
				err := db.WithContext(tenant.Ctx(ctx, id)).Transaction(func(tx *gorm.DB) error { return tx.Exec("SELECT 1").Error })
				if err != nil && !errors.Is(err, tenancy.ErrPoolExhausted) {
					t.Error(err)
				}
				if i%10 == 0 {
					plugin.Evict(id)
				}
			}
		})
	}
	work.Wait()
	cancel()
	scrapes.Wait()
	require.Eventually(t, func() bool { // the observer is told after the caller
		got := values(t, reg)
		return got["tenancy_server_waits_total{files}"] > 0 &&
			got["tenancy_server_waits_total{files}"] == got["tenancy_server_wait_duration_seconds{files}"] &&
			got["tenancy_pools_opened_total"] == got["tenancy_events_total{opened}"]
	}, 10*time.Second, time.Millisecond)
}
