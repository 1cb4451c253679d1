package bench

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/peterldowns/pgtestdb"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/testpg"
	"github.com/gorm-tenancy/tenancy/tenancytest/testsqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Models of the application that BenchmarkTestKit tests: ten tables of a tenant.
type (
	kitA struct {
		ID   uint
		Text string `gorm:"index"`
	}
	kitB kitA
	kitC kitA
	kitD kitA
	kitE kitA
	kitF kitA
	kitG kitA
	kitH kitA
	kitI kitA
	kitJ kitA
)

var kitModels = []any{&kitA{}, &kitB{}, &kitC{}, &kitD{}, &kitE{}, &kitF{}, &kitG{}, &kitH{}, &kitI{}, &kitJ{}}

// kitTest is what a test does: it writes in a transaction, and reads.
func kitTest(db *gorm.DB, ctx context.Context) error {
	tx := db.WithContext(ctx)
	if err := tx.Transaction(func(tx *gorm.DB) error {
		return tx.Create(&[]kitA{{Text: "x"}, {Text: "y"}}).Error
	}); err != nil {
		return err
	}
	if err := tx.Create(&kitB{Text: "z"}).Error; err != nil {
		return err
	}
	var all []kitA
	if err := tx.Order("id").Find(&all).Error; err != nil {
		return err
	}
	if len(all) != 2 {
		return fmt.Errorf("%d rows", len(all))
	}
	return db.WithContext(tenant.Main(ctx)).Create(&Plan{Name: "p"}).Error
}

// BenchmarkTestKit is one test from its beginning to its end, cleanup
// included, on a server without fsync: a main database and one tenant, three
// writes and a read. "sandbox" and "clone" are tenancytest's, "sqlite" is its copy of
// a file. "pgtestdb" is what one would take otherwise: two databases by
// github.com/peterldowns/pgtestdb, on the same server, and this module on them.
// They take turns; the figures are medians.
func BenchmarkTestKit(b *testing.B) {
	pg := pgtest.Start(b, pgtest.MaxConns(200))
	kit := func(backend tenancytest.Backend) *tenancytest.Kit {
		k := tenancytest.New(tenancytest.Config{
			Backend: backend, Migrator: tenancytest.AutoMigrate(kitModels...), MainModels: []any{&Plan{}},
			GORM: func() *gorm.Config { return &gorm.Config{Logger: logger.Discard} },
		})
		b.Cleanup(func() {
			if err := k.Close(); err != nil {
				b.Error(err)
			}
		})
		return k
	}
	onPG, onSQLite := kit(testpg.Backend{DSN: pg.DSN("postgres")}), kit(testsqlite.Backend{})
	ways := []struct {
		name string
		do   func(t *kitT) error
	}{
		{"sandbox", func(t *kitT) error { env := onPG.Env(t); return kitTest(env.DB, env.Tenant("acme")) }},
		{"clone", func(t *kitT) error {
			env := onPG.Env(t, tenancytest.CloneMain())
			return kitTest(env.DB, env.Clone("acme"))
		}},
		{"sqlite", func(t *kitT) error { env := onSQLite.Env(t); return kitTest(env.DB, env.Tenant("acme")) }},
		{"pgtestdb", func(t *kitT) error { return byPGTestDB(t, pg) }},
	}
	took := make([][]time.Duration, len(ways))
	run := func() {
		for i, way := range ways {
			t := &kitT{B: b}
			began := time.Now()
			if err := way.do(t); err != nil {
				b.Fatal(way.name, err)
			}
			t.end()
			took[i] = append(took[i], time.Since(began))
		}
	}
	run() // makes the templates
	clear(took)
	for b.Loop() {
		run()
	}
	median := func(i int) float64 {
		slices.Sort(took[i])
		return float64(took[i][len(took[i])/2]) / float64(time.Millisecond)
	}
	last := median(len(ways) - 1)
	for i, way := range ways {
		b.ReportMetric(median(i), way.name+"-ms")
		if way.name != "pgtestdb" {
			b.ReportMetric(median(i)/last, way.name+"-of-pgtestdb")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// byPGTestDB is the test with two of pgtestdb's databases.
func byPGTestDB(t *kitT, pg *pgtest.Cluster) error {
	at, err := url.Parse(pg.DSN("postgres"))
	if err != nil {
		return err
	}
	database := func(models ...any) string {
		return pgtestdb.Custom(t, pgtestdb.Config{
			DriverName: "pgx", Host: at.Hostname(), Port: at.Port(), User: "postgres", Database: "postgres", Options: "sslmode=disable",
			ForceTerminateConnections: true,
		}, autoMigrator(models)).URL()
	}
	main, acme := database(&Plan{}), database(kitModels...)
	db, err := gorm.Open(postgres.Open(main), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return err
	}
	plugin := tenancy.New(tenancy.Config{
		Resolver: tenancy.Static{"acme": {DSN: acme}}, Engine: tenancypg.Engine{}, MainModels: []any{&Plan{}},
	})
	t.Cleanup(func() {
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
		_ = plugin.Close(context.Background())
	})
	if err := db.Use(plugin); err != nil {
		return err
	}
	return kitTest(db, tenant.Ctx(context.Background(), "acme"))
}

// autoMigrator is a pgtestdb.Migrator.
type autoMigrator []any

func (m autoMigrator) Hash() (string, error) { return fmt.Sprintf("tables%d", len(m)), nil }

func (m autoMigrator) Migrate(_ context.Context, db *sql.DB, _ pgtestdb.Config) error {
	g, err := gorm.Open(postgres.New(postgres.Config{Conn: db}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return err
	}
	return g.AutoMigrate(m...)
}

// kitT is the T of one test in the benchmark: it ends by end.
type kitT struct {
	*testing.B
	cleanups []func()
}

func (t *kitT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Logf is silent: pgtestdb logs each database.
func (t *kitT) Logf(string, ...any) {}

func (t *kitT) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
	t.cleanups = nil
}
