package tenancy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// exampleDB opens a main database and the tenants, each with one invoice.
func exampleDB(limits tenancy.Limits, ids ...string) (db *gorm.DB, done func()) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "tenancy-")
	must(err)
	tenants := tenancy.Static{}
	for _, id := range ids {
		path := filepath.Join(dir, id+".db")
		must(tenancysqlite.Create(ctx, path))
		tenants[id] = tenancy.Database{DSN: tenancysqlite.DSN(path), Server: "files"}
	}
	db, err = gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")), &gorm.Config{Logger: logger.Discard})
	must(err)
	plugin := tenancy.New(tenancy.Config{Resolver: tenants, Engine: tenancysqlite.Engine{}, Pools: limits})
	must(db.Use(plugin))
	for _, id := range ids {
		tx := db.WithContext(tenant.Ctx(ctx, id))
		must(tx.AutoMigrate(&Invoice{}))
		must(tx.Create(&Invoice{Cents: 100 * len(id)}).Error)
		must(plugin.Drain(ctx, id))
	}
	return db, func() {
		must(plugin.Close(ctx))
		main, err := db.DB()
		must(err)
		must(main.Close())
		must(os.RemoveAll(dir))
	}
}

type Invoice struct {
	ID    uint
	Cents int
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A report over all tenants, four at a time. It pushes no tenant out that is in
// use, and goes on past those that fail.
func ExampleEach() {
	db, done := exampleDB(tenancy.Limits{}, "acme", "bravo", "charlie")
	defer done()

	sums := make(chan int, 10)
	err := tenancy.Each(context.Background(), db, ids("acme", "bravo", "charlie", "nobody"),
		tenancy.EachOptions{Parallel: 4},
		func(ctx context.Context, id string, db *gorm.DB) error {
			var sum int
			if err := db.Model(&Invoice{}).Select("sum(cents)").Scan(&sum).Error; err != nil {
				return err
			}
			sums <- sum
			return nil
		})
	close(sums)
	total := 0
	for sum := range sums {
		total += sum
	}
	fmt.Println(total, "cents")

	var each *tenancy.EachError
	if errors.As(err, &each) {
		fmt.Println(slices.Sorted(slices.Values(each.Done)))
		for _, f := range each.Failed {
			fmt.Println(f.Tenant, errors.Is(f.Err, tenancy.ErrTenantNotFound))
		}
	}
	// Output:
	// 1600 cents
	// [acme bravo charlie]
	// nobody true
}

// A sweep that goes on where it ended: here it is interrupted after the first
// tenant, and begun again with the same file.
func ExampleOpenCheckpoint() {
	db, done := exampleDB(tenancy.Limits{}, "acme", "bravo", "charlie")
	defer done()
	dir, err := os.MkdirTemp("", "sweep-")
	must(err)
	defer func() { must(os.RemoveAll(dir)) }()

	sweep := func(fn func(id string) error) error {
		checkpoint, err := tenancy.OpenCheckpoint(filepath.Join(dir, "send-invoices"))
		must(err)
		defer func() { must(checkpoint.Close()) }()
		return tenancy.Each(context.Background(), db, ids("acme", "bravo", "charlie"),
			tenancy.EachOptions{StopOnError: true, Checkpoint: checkpoint},
			func(_ context.Context, id string, _ *gorm.DB) error { return fn(id) })
	}
	err = sweep(func(id string) error {
		if id == "bravo" {
			return errors.New("no paper")
		}
		fmt.Println("first:", id)
		return nil
	})
	fmt.Println(err)
	must(sweep(func(id string) error {
		fmt.Println("then:", id)
		return nil
	}))
	// Output:
	// first: acme
	// tenancy: each: 1 tenants done, 1 failed; bravo: no paper
	// then: bravo
	// then: charlie
}

// One connection for two tenants: the second is told in time what is full.
func ExampleLimits() {
	db, done := exampleDB(tenancy.Limits{
		MaxConnsPerServer: 1,
		AcquireTimeout:    50 * time.Millisecond,
	}, "acme", "bravo")
	defer done()
	ctx := context.Background()

	tx := db.WithContext(tenant.Ctx(ctx, "acme")).Begin() // holds the connection
	must(tx.Error)
	var invoice Invoice
	err := db.WithContext(tenant.Ctx(ctx, "bravo")).First(&invoice).Error
	fmt.Println(errors.Is(err, tenancy.ErrPoolExhausted))

	must(tx.Rollback().Error)
	err = db.WithContext(tenant.Ctx(ctx, "bravo")).First(&invoice).Error // acme's is closed for it
	fmt.Println(invoice.Cents, err)
	// Output:
	// true
	// 500 <nil>
}

// Reads go to a replica, what was just written is asked of the primary. (A
// server copies without being told; here the copy is made by hand, and lags.)
func ExampleDatabase_replicas() {
	ctx := tenant.Ctx(context.Background(), "acme")
	dir, err := os.MkdirTemp("", "tenancy-")
	must(err)
	defer os.RemoveAll(dir)
	primary, replica := filepath.Join(dir, "primary.db"), filepath.Join(dir, "replica.db")
	must(tenancysqlite.Create(ctx, primary))

	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")), &gorm.Config{Logger: logger.Discard})
	must(err)
	plugin := tenancy.New(tenancy.Config{
		Engine: tenancysqlite.Engine{},
		Resolver: tenancy.Static{"acme": {
			DSN:      tenancysqlite.DSN(primary),
			Replicas: []tenancy.Database{{DSN: tenancysqlite.DSN(replica)}},
		}},
	})
	must(db.Use(plugin))
	defer func() {
		must(plugin.Close(context.Background()))
		main, err := db.DB()
		must(err)
		must(main.Close())
	}()

	db = db.WithContext(ctx)
	must(db.AutoMigrate(&Invoice{}))
	must(db.Exec("VACUUM INTO ?", replica).Error)
	must(db.Create(&Invoice{Cents: 500}).Error)

	var replicas, primaries int64
	must(db.Model(&Invoice{}).Count(&replicas).Error)
	must(db.Clauses(dbresolver.Write).Model(&Invoice{}).Count(&primaries).Error)
	fmt.Println(replicas, primaries)
	// Output:
	// 0 1
}

// What a metrics endpoint would show of each server.
func ExamplePlugin_Stats() {
	db, done := exampleDB(tenancy.Limits{}, "acme", "bravo")
	defer done()
	for _, id := range []string{"acme", "bravo"} {
		must(db.WithContext(tenant.Ctx(context.Background(), id)).First(&Invoice{}).Error)
	}

	plugin, _ := tenancy.From(db)
	for _, s := range plugin.Stats().Servers {
		fmt.Printf("%s: %d of %d connections, %d idle, %d callers wait, down: %t\n",
			s.Server, s.Conns, s.MaxConns, s.Idle, s.Waiting, s.Down)
	}
	// Output:
	// files: 2 of 256 connections, 2 idle, 0 callers wait, down: false
}
