package tenancyprometheus_test

import (
	"fmt"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

// openFiles returns a db with a plugin for tenants in files.
func openFiles(t testing.TB, static tenancy.Static, change func(*tenancy.Config)) (*gorm.DB, *tenancy.Plugin) {
	cfg := tenancy.Config{Resolver: static, Engine: tenancysqlite.Engine{}}
	if change != nil {
		change(&cfg)
	}
	return notes.Open(t, sqlite.Open(notes.File(t)), cfg)
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
