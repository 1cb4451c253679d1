package tenancyotel_test

import (
	"context"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a db whose tenants have an SQLite file each, on a server called
// "files".
func open(t testing.TB, cfg tenancy.Config, ids ...string) (*gorm.DB, *tenancy.Plugin) {
	cfg.Resolver, cfg.Engine = notes.Files(t, ids...), tenancysqlite.Engine{}
	return notes.Open(t, sqlite.Open(notes.File(t)), cfg)
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
