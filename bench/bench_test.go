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

// side is one of the two that are compared: a db and a context to use it with.
type side struct {
	name string
	db   *gorm.DB
	ctx  context.Context
}

func open(tb testing.TB, config gorm.Config) *gorm.DB {
	tb.Helper()
	pool := sql.OpenDB(&null{name: "main"})
	// As tenants' pools are: with a lifetime, database/sql reads the clock for
	// each statement.
	pool.SetMaxIdleConns(4)
	pool.SetMaxOpenConns(4)
	pool.SetConnMaxIdleTime(time.Minute)
	pool.SetConnMaxLifetime(30 * time.Minute)
	tb.Cleanup(func() { _ = pool.Close() })
	config.Logger, config.ConnPool = logger.Discard, pool
	db, err := gorm.Open(tests.DummyDialector{}, &config)
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

// sides returns plain GORM, and GORM with this module and open tenants.
func sides(tb testing.TB, config gorm.Config) []side {
	tb.Helper()
	plain, db := open(tb, config), open(tb, config)
	static := tenancy.Static{}
	for i := range tenants {
		id := fmt.Sprintf("t%d", i)
		static[id] = tenancy.Database{Connector: &null{name: id}}
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
	// A context of the same depth on both sides.
	type key struct{}
	return []side{
		{"plain", plain, context.WithValue(context.Background(), key{}, "")},
		{"tenancy", db, tenant.Ctx(context.Background(), "t7")},
	}
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
	both := sides(b, gorm.Config{})
	for _, w := range work {
		b.Run(w.name, func(b *testing.B) {
			for _, s := range both {
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
	both := sides(b, gorm.Config{})
	for _, s := range both {
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
