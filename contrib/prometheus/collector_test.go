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
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	tenancyprometheus "github.com/gorm-tenancy/tenancy/contrib/prometheus"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestBeforeUseAndAfterClose(t *testing.T) {
	plugin := tenancy.New(tenancy.Config{Resolver: notes.Files(t, "acme")})
	reg := register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 1}))
	require.EqualValues(t, 1000, values(t, reg)["tenancy_pools_max"])

	db, plugin := openFiles(t, notes.Files(t, "acme"), nil)
	reg = register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 1}))
	require.NoError(t, notes.Ask(db, "acme"))
	require.EqualValues(t, 1, values(t, reg)["tenancy_tenant_connections{files,acme}"])
	require.NoError(t, plugin.Close(t.Context()))
	got := values(t, reg)
	require.EqualValues(t, 1, got["tenancy_pools_evicted_total{closed}"])
	require.Zero(t, got["tenancy_pools"]+got["tenancy_connections"]+got["tenancy_server_connections{files}"])
	require.Contains(t, got, "tenancy_server_connections{files}", "what was counted is not forgotten")
	require.NotContains(t, got, "tenancy_tenant_connections{files,acme}")
}

func TestBadInput(t *testing.T) {
	_, plugin := openFiles(t, notes.Files(t), nil)
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
	_, one := openFiles(t, notes.Files(t, "acme"), func(c *tenancy.Config) { c.Pools.MaxPools = 1 })
	_, two := openFiles(t, notes.Files(t, "acme"), func(c *tenancy.Config) { c.Pools.MaxPools = 2 })
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
		static[fmt.Sprint("t", i)] = tenancy.Database{DSN: notes.File(t), Server: name}
	}
	observer := tenancyprometheus.NewObserver()
	db, plugin := openFiles(t, static, func(c *tenancy.Config) { c.Observer = observer })
	reg := register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 100}), observer)
	for id := range static {
		require.NoError(t, notes.Ask(db, id))
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
	db, plugin := openFiles(t, tenancy.Static{"acme": {DSN: notes.File(t)}}, func(c *tenancy.Config) { c.Engine = unnamed{c.Engine} })
	require.NoError(t, notes.Ask(db, "acme"))
	got := values(t, register(t, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{Tenants: 1})))
	require.EqualValues(t, 1, got["tenancy_server_connections{(unnamed)}"])
	require.EqualValues(t, 1, got["tenancy_tenant_connections{(unnamed),acme}"])
}

// TestReplicas has a tenant with two replicas on one server: one series.
func TestReplicas(t *testing.T) {
	dsn := notes.File(t)
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
	db, plugin := openFiles(t, notes.Files(t, ids...), nil)
	for _, id := range ids {
		require.NoError(t, notes.Ask(db, id))
	}
	// The one that has more connections is among them.
	require.NoError(t, tenancy.Conn(tenant.Ctx(t.Context(), "t7"), db, func(*sql.Conn) error {
		require.NoError(t, notes.Ask(db, "t7"))
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
	db, plugin := openFiles(t, notes.Files(t, ids...), func(c *tenancy.Config) {
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
