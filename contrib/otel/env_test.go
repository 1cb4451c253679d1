package tenancyotel_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func file(t testing.TB, name string) string {
	path := filepath.Join(t.TempDir(), name+".db")
	require.NoError(t, tenancysqlite.Engine{}.Create(t.Context(), path))
	return path
}

// open returns a db whose tenants have an SQLite file each, on a server called
// "files".
func open(t testing.TB, cfg tenancy.Config, ids ...string) (*gorm.DB, *tenancy.Plugin) {
	static := tenancy.Static{}
	for _, id := range ids {
		static[id] = tenancy.Database{DSN: file(t, id), Server: "files"}
	}
	cfg.Resolver, cfg.Engine = static, tenancysqlite.Engine{}
	db, err := gorm.Open(sqlite.Open(file(t, "main")), &gorm.Config{Logger: logger.Discard})
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

// ask runs a statement for the tenant id.
func ask(db *gorm.DB, id string) error {
	var one int
	return db.WithContext(tenant.Ctx(context.Background(), id)).Raw("SELECT 1").Scan(&one).Error
}

// metering returns a provider, and what reads it.
func metering(t testing.TB) (*sdkmetric.MeterProvider, *sdkmetric.ManualReader) {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	t.Cleanup(func() { require.NoError(t, provider.Shutdown(context.Background())) })
	return provider, reader
}

// read returns the value of each series, or the number of samples of a
// histogram's, and each metric's unit.
func read(t testing.TB, reader *sdkmetric.ManualReader) (values map[string]float64, units map[string]string) {
	var out metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &out))
	values, units = map[string]float64{}, map[string]string{}
	for _, scope := range out.ScopeMetrics {
		for _, m := range scope.Metrics {
			units[m.Name] = m.Unit
			add := func(attrs attribute.Set, v float64) {
				series := m.Name
				if attrs.Len() > 0 {
					series += "{" + attrs.Encoded(attribute.DefaultEncoder()) + "}"
				}
				require.NotContains(t, values, series)
				values[series] = v
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Value))
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Value))
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Count))
				}
			default:
				t.Fatalf("%s is a %T", m.Name, data)
			}
		}
	}
	return values, units
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
