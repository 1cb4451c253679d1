package tenancyriver_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	tenancyriver "github.com/gorm-tenancy/tenancy/contrib/river"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// One queue in the main database; the worker writes to the tenant of each job.
// On PostgreSQL the driver is riverdatabasesql or riverpgxv5.
func Example() {
	ctx := context.Background()
	db, plugin, clean := exampleApp(ctx, "acme", "bravo")
	defer clean()
	main, err := db.DB()
	must(err)
	driver := riversqlite.New(main)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	must(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	must(err)

	tenants, err := tenancyriver.New(tenancyriver.Config{Check: plugin.Check})
	must(err)
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(ctx context.Context, job *river.Job[InvoiceArgs]) error {
		return db.WithContext(ctx).Create(&Invoice{Text: job.Args.Text}).Error
	}))
	client, err := river.NewClient(driver, &river.Config{
		Middleware: []rivertype.Middleware{tenants},
		Workers:    workers,
		Queues:     map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 1}},
		Logger:     slog.New(slog.DiscardHandler),
	})
	must(err)
	done, cancel := client.Subscribe(river.EventKindJobCompleted)
	defer cancel()
	must(client.Start(ctx))

	for _, id := range []string{"acme", "bravo"} {
		ctx := tenant.Pin(ctx, id) // as the middleware of a web server does
		_, err := client.Insert(ctx, InvoiceArgs{Text: "invoice for " + id}, nil)
		must(err)
		<-done
	}
	_, err = client.Insert(ctx, InvoiceArgs{Text: "whose?"}, nil)
	fmt.Println(errors.Is(err, tenancy.ErrNoTenant))
	must(client.Stop(ctx))

	for _, id := range []string{"acme", "bravo"} {
		var invoice Invoice
		must(db.WithContext(tenant.Ctx(ctx, id)).Take(&invoice).Error)
		fmt.Println(id, "has the", invoice.Text)
	}
	// Output:
	// true
	// acme has the invoice for acme
	// bravo has the invoice for bravo
}

func exampleApp(ctx context.Context, ids ...string) (_ *gorm.DB, _ *tenancy.Plugin, clean func()) {
	dir, err := os.MkdirTemp("", "tenancy-")
	must(err)
	dsns := tenancy.Static{}
	for _, id := range append(ids, "main") {
		path := filepath.Join(dir, id+".db")
		must(tenancysqlite.Create(ctx, path))
		dsns[id] = tenancy.Database{DSN: tenancysqlite.DSN(path)}
	}
	// One connection: River's SQLite driver wants writers in a row.
	pool, err := sql.Open("sqlite", dsns["main"].DSN)
	must(err)
	pool.SetMaxOpenConns(1)
	db, err := gorm.Open(&sqlite.Dialector{Conn: pool}, &gorm.Config{Logger: logger.Discard})
	must(err)
	plugin := tenancy.New(tenancy.Config{Resolver: dsns, Engine: tenancysqlite.Engine{}})
	must(db.Use(plugin))
	for _, id := range ids {
		must(db.WithContext(tenant.Ctx(ctx, id)).AutoMigrate(&Invoice{}))
	}
	return db, plugin, func() {
		must(plugin.Close(ctx))
		must(pool.Close())
		must(os.RemoveAll(dir))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
