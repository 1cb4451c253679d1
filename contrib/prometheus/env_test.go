package tenancyprometheus_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

// files are tenants with an SQLite file each, on a server called "files".
func files(t testing.TB, ids ...string) tenancy.Static {
	static := tenancy.Static{}
	for _, id := range ids {
		static[id] = tenancy.Database{DSN: file(t, id), Server: "files"}
	}
	return static
}

func file(t testing.TB, name string) string {
	path := filepath.Join(t.TempDir(), name+".db")
	require.NoError(t, tenancysqlite.Engine{}.Create(t.Context(), path))
	return path
}

// open returns a db with a plugin of cfg, both closed at the test's end. The
// main database is a file, too.
func open(t testing.TB, main gorm.Dialector, cfg tenancy.Config) (*gorm.DB, *tenancy.Plugin) {
	db, err := gorm.Open(main, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	plugin := tenancy.New(cfg)
	require.NoError(t, db.Use(plugin))
	t.Cleanup(func() {
		require.NoError(t, plugin.Close(context.Background()))
		sqlDB, err := db.DB()
		require.NoError(t, err)
		require.NoError(t, sqlDB.Close())
	})
	return db, plugin
}

func openFiles(t testing.TB, static tenancy.Static, change func(*tenancy.Config)) (*gorm.DB, *tenancy.Plugin) {
	cfg := tenancy.Config{Resolver: static, Engine: tenancysqlite.Engine{}}
	if change != nil {
		change(&cfg)
	}
	return open(t, sqlite.Open(file(t, "main")), cfg)
}

// ask runs a statement for the tenant id.
func ask(db *gorm.DB, id string) error {
	var one int
	return db.WithContext(tenant.Ctx(context.Background(), id)).Raw("SELECT 1").Scan(&one).Error
}

// register returns a registry that checks what it is given.
func register(t testing.TB, all ...prometheus.Collector) *prometheus.Registry {
	reg := prometheus.NewPedanticRegistry()
	for _, c := range all {
		require.NoError(t, reg.Register(c))
	}
	return reg
}

// values returns the value of each series, or the number of samples of a
// histogram's.
func values(t testing.TB, from prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := from.Gather()
	require.NoError(t, err)
	found := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			found[family.GetName()+labels(m)] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return found
}

// labels returns the values of m's labels: {a,b}.
func labels(m *dto.Metric) string {
	out := ""
	for _, l := range m.GetLabel() {
		out += fmt.Sprintf(",%s", l.GetValue())
	}
	if out == "" {
		return ""
	}
	return "{" + out[1:] + "}"
}

// settle waits until no call is in progress: openings end after their callers
// have gone on.
func settle(t testing.TB, plugin *tenancy.Plugin) {
	t.Helper()
	require.Eventually(t, func() bool {
		s := plugin.Stats()
		return s.Opening+s.InUse+s.Draining == 0
	}, 10*time.Second, time.Millisecond)
}
