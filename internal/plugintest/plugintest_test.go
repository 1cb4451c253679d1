// Package plugintest tests tenancy together with plugins that the module
// itself must not depend on.
package plugintest

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/opentelemetry/tracing"
	gormprom "gorm.io/plugin/prometheus"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

type Plan struct {
	ID   uint
	Name string
}

type Order struct {
	ID    uint
	Title string
}

// orders runs test with another plugin used before and after tenancy.
func orders(t *testing.T, test func(t *testing.T, open func(other gorm.Plugin) *gorm.DB)) {
	for name, before := range map[string]bool{"before": true, "after": false} {
		t.Run(name, func(t *testing.T) {
			test(t, func(other gorm.Plugin) *gorm.DB { return open(t, other, before) })
		})
	}
}

func open(t *testing.T, other gorm.Plugin, before bool) *gorm.DB {
	t.Helper()
	dir := t.TempDir()
	create := func(name string) string {
		dsn := tenancysqlite.DSN(filepath.Join(dir, name+".db"))
		require.NoError(t, tenancysqlite.Engine{}.Create(t.Context(), dsn))
		return dsn
	}
	db, err := gorm.Open(sqlite.Open(create("main")), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	t.Cleanup(func() {
		pool, err := db.DB() // still the main database
		require.NoError(t, err)
		require.NoError(t, pool.Close())
	})
	plugin := tenancy.New(tenancy.Config{
		Engine:     tenancysqlite.Engine{},
		Resolver:   tenancy.Static{"a": {DSN: create("a")}, "b": {DSN: create("b")}},
		MainModels: []any{&Plan{}},
	})
	t.Cleanup(func() { require.NoError(t, plugin.Close(context.Background())) })
	plugins := []gorm.Plugin{plugin, other}
	if before {
		slices.Reverse(plugins)
	}
	for _, p := range plugins {
		require.NoError(t, db.Use(p))
	}
	require.NoError(t, tenancy.Verify(db))

	require.NoError(t, db.WithContext(tenant.Main(t.Context())).AutoMigrate(&Plan{}))
	require.NoError(t, db.Create(&Plan{Name: "main's"}).Error)
	for _, id := range []string{"a", "b"} {
		require.NoError(t, in(t, db, id).AutoMigrate(&Order{}))
		require.NoError(t, in(t, db, id).Create(&Order{Title: "of " + id}).Error)
	}
	return db
}

func in(t *testing.T, db *gorm.DB, id string) *gorm.DB {
	return db.WithContext(tenant.Ctx(t.Context(), id))
}

// works checks that statements go where they belong.
func works(t *testing.T, db *gorm.DB) {
	t.Helper()
	for _, id := range []string{"a", "b"} {
		var found []Order
		require.NoError(t, in(t, db, id).Find(&found).Error)
		require.Equal(t, []Order{{ID: 1, Title: "of " + id}}, found)
		require.NoError(t, in(t, db, id).Transaction(func(tx *gorm.DB) error {
			require.NoError(t, tx.Create(&Order{Title: "new of " + id}).Error)
			return tx.Where("title = ?", "new of "+id).Delete(&Order{}).Error
		}))
		var title string
		require.NoError(t, in(t, db, id).Raw("SELECT title FROM orders").Row().Scan(&title))
		require.Equal(t, "of "+id, title)
	}
	var plan Plan
	require.NoError(t, db.First(&plan).Error)
	require.Equal(t, "main's", plan.Name)
	require.ErrorIs(t, db.Find(&[]Order{}).Error, tenancy.ErrNoTenant)
}

func TestRedTeam40OpenTelemetry(t *testing.T) {
	orders(t, func(t *testing.T, open func(gorm.Plugin) *gorm.DB) {
		spans := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
		db := open(tracing.NewPlugin(tracing.WithTracerProvider(provider), tracing.WithoutMetrics()))
		works(t, db)

		ctx, parent := provider.Tracer("test").Start(tenant.Ctx(t.Context(), "a"), "parent")
		before := len(spans.Ended())
		require.NoError(t, db.WithContext(ctx).Find(&[]Order{}).Error)
		require.NoError(t, db.WithContext(ctx).Create(&Order{Title: "traced"}).Error)
		parent.End()
		var statements []string
		for _, s := range spans.Ended()[before:] {
			if s.Name() == "parent" {
				continue
			}
			require.Equal(t, parent.SpanContext().SpanID(), s.Parent().SpanID())
			for _, a := range s.Attributes() {
				if a.Key == attribute.Key("db.query.text") || a.Key == attribute.Key("db.statement") {
					statements = append(statements, a.Value.AsString())
				}
			}
		}
		require.Len(t, statements, 2)
		require.Contains(t, statements[0], "SELECT * FROM `orders`")
		require.Contains(t, statements[1], "INSERT INTO `orders`")

		// The metrics of the main database's pool are read through db.DB().
		metrics := open(tracing.NewPlugin(tracing.WithTracerProvider(provider)))
		works(t, metrics)
	})
}

func TestRedTeam40Prometheus(t *testing.T) {
	orders(t, func(t *testing.T, open func(gorm.Plugin) *gorm.DB) {
		p := gormprom.New(gormprom.Config{DBName: t.Name(), RefreshInterval: 1})
		db := open(p)
		t.Cleanup(func() {
			for _, c := range p.DBStats.Collectors() {
				prometheus.Unregister(c)
			}
		})
		works(t, db)
		pool, err := p.DB.DB()
		require.NoError(t, err, "what the plugin calls on every refresh")
		pool.SetMaxOpenConns(7)
		p.DBStats.Set(pool.Stats())
		families, err := prometheus.DefaultGatherer.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() != "gorm_dbstats_max_open_connections" {
				continue
			}
			for _, m := range f.GetMetric() {
				if m.GetLabel()[0].GetValue() == t.Name() {
					require.EqualValues(t, 7, m.GetGauge().GetValue())
					return
				}
			}
		}
		t.Fatal("the plugin has registered no metrics")
	})
}
