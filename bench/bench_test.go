// Package bench compares GORM with this module to GORM without it, on a
// database that does nothing, so that what the module costs is all that
// differs. Both sides run in one process, one after the other: look at the
// difference, the sums depend on the machine.
package bench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/utils/tests"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Order is a tenant's model, Plan a main one.
type Order struct {
	ID    uint
	Title string
}

type Plan struct {
	ID   uint
	Name string
}

// tenants is how many tenants are open; the statements are all of one.
const tenants = 100

// side is one of those that are compared: a db and a context to use it with.
type side struct {
	name string
	db   *gorm.DB
	ctx  context.Context
}

func open(tb testing.TB, config gorm.Config) *gorm.DB {
	tb.Helper()
	pool := nullPool(tb, "main")
	config.Logger, config.ConnPool = logger.Discard, pool
	db, err := gorm.Open(tests.DummyDialector{}, &config)
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

func nullPool(tb testing.TB, name string) *sql.DB {
	pool := sql.OpenDB(&null{name: name})
	// As tenants' pools are: with a lifetime, database/sql reads the clock for
	// each statement.
	pool.SetMaxIdleConns(4)
	pool.SetMaxOpenConns(4)
	pool.SetConnMaxIdleTime(time.Minute)
	pool.SetConnMaxLifetime(30 * time.Minute)
	tb.Cleanup(func() { _ = pool.Close() })
	return pool
}

// sides returns plain GORM, and GORM with this module and open tenants; and the
// same with two replicas, to which reads go: GORM with dbresolver, and the
// module with tenants that have two each.
func sides(tb testing.TB, config gorm.Config) []side {
	tb.Helper()
	// A context of the same depth on all sides.
	type key struct{}
	ctx := tenant.Ctx(context.Background(), "t7")
	without := context.WithValue(context.Background(), key{}, "")
	return []side{
		{"plain", open(tb, config), without},
		{"tenancy", withTenants(tb, open(tb, config), 0), ctx},
		{"dbresolver", withDBResolver(tb, open(tb, config), 2), without},
		{"replicas", withTenants(tb, open(tb, config), 2), ctx},
	}
}

// withDBResolver makes db, of one database, use dbresolver.
func withDBResolver(tb testing.TB, db *gorm.DB, replicas int) *gorm.DB {
	tb.Helper()
	var config dbresolver.Config
	for r := range replicas {
		config.Replicas = append(config.Replicas, nullDialector{pool: nullPool(tb, fmt.Sprintf("replica %d", r))})
	}
	if err := db.Use(dbresolver.Register(config)); err != nil {
		tb.Fatal(err)
	}
	return db
}

// nullDialector opens a pool, as dbresolver wants it.
type nullDialector struct {
	tests.DummyDialector
	pool *sql.DB
}

func (d nullDialector) Initialize(db *gorm.DB) error {
	db.ConnPool = d.pool
	return d.DummyDialector.Initialize(db)
}

// withTenants makes db use the module, with open tenants.
func withTenants(tb testing.TB, db *gorm.DB, replicas int) *gorm.DB {
	tb.Helper()
	static := tenancy.Static{}
	for i := range tenants {
		id := fmt.Sprintf("t%d", i)
		d := tenancy.Database{Connector: &null{name: id}, Server: "primaries"}
		for r := range replicas {
			name := fmt.Sprintf("replica %d", r)
			d.Replicas = append(d.Replicas, tenancy.Database{Connector: &null{name: id + name}, Server: name})
		}
		static[id] = d
	}
	plugin := tenancy.New(tenancy.Config{Resolver: static, MainModels: []any{&Plan{}}})
	if err := db.Use(plugin); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := plugin.Close(ctx); err != nil {
			tb.Error(err)
		}
	})
	for id := range static {
		if err := db.WithContext(tenant.Ctx(context.Background(), id)).Exec("SELECT 1").Error; err != nil {
			tb.Fatal(err)
		}
	}
	return db
}

// work lists what is compared. Nothing is ever found in a null database.
var work = []struct {
	name string
	do   func(db *gorm.DB) error
}{
	{"First", func(db *gorm.DB) error {
		var o Order
		if err := db.First(&o, 1).Error; !errors.Is(err, gorm.ErrRecordNotFound) {
			return fmt.Errorf("First: %w", err)
		}
		return nil
	}},
	{"Find", func(db *gorm.DB) error {
		var os []Order
		return db.Where("title = ?", "x").Order("id").Limit(10).Find(&os).Error
	}},
	{"Create", func(db *gorm.DB) error { return db.Create(&Order{Title: "x"}).Error }},
	{"Update", func(db *gorm.DB) error {
		return db.Model(&Order{ID: 1}).Update("title", "y").Error
	}},
	{"Delete", func(db *gorm.DB) error { return db.Delete(&Order{ID: 1}).Error }},
	{"Exec", func(db *gorm.DB) error { return db.Exec("UPDATE orders SET title = ? WHERE id = ?", "x", 1).Error }},
	{"Raw", func(db *gorm.DB) error {
		var os []Order
		return db.Raw("SELECT * FROM orders WHERE id = ?", 1).Scan(&os).Error
	}},
	{"Transaction", func(db *gorm.DB) error {
		return db.Transaction(func(tx *gorm.DB) error {
			return tx.Exec("UPDATE orders SET title = ? WHERE id = ?", "x", 1).Error
		})
	}},
}

func Benchmark(b *testing.B) {
	all := sides(b, gorm.Config{})
	for _, w := range work {
		b.Run(w.name, func(b *testing.B) {
			for _, s := range all {
				b.Run(s.name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := w.do(s.db.WithContext(s.ctx)); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}

// BenchmarkParallel is Find from many goroutines at once, each on a tenant of
// its own, where locks show.
func BenchmarkParallel(b *testing.B) {
	all := sides(b, gorm.Config{})
	for _, s := range all {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					var os []Order
					if err := s.db.WithContext(s.ctx).Find(&os).Error; err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
