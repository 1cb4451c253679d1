package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	tenancyriver "github.com/gorm-tenancy/tenancy/contrib/river"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// app is what the program keeps for as long as it runs.
type app struct {
	out     io.Writer
	db      *gorm.DB
	main    *sql.DB // the main database's pool, which River uses
	server  *tenancypg.Server
	tenants *catalog.Catalog
	plugin  *tenancy.Plugin
	queue   *river.Client[*sql.Tx]
	events  <-chan *river.Event
}

// createMain makes a database on the server, and returns its DSN.
func createMain(ctx context.Context, dsn string) (main string, drop func() error, err error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		// The error would repeat the DSN, and its password.
		return "", nil, errors.New("the DSN must be a URL: postgres://user:password@host:5432/postgres")
	}
	name := "tenancy_example_" + strings.ToLower(rand.Text()[:16])
	exec := func(ctx context.Context, sql string) error {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, sql)
		return errors.Join(err, conn.Close(ctx))
	}
	u.Path = "/" + name
	quoted := pgx.Identifier{name}.Sanitize()
	return u.String(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return exec(ctx, "DROP DATABASE "+quoted)
	}, exec(ctx, "CREATE DATABASE "+quoted)
}

// open is what an application does at its start. What it returns is to be
// closed, also with an error.
func open(ctx context.Context, out io.Writer, dsn string) (a *app, err error) {
	a = &app{out: out}
	if a.db, err = gorm.Open(postgres.Open(dsn), &gorm.Config{Logger: logger.Discard}); err != nil {
		return a, err
	}
	if a.main, err = a.db.DB(); err != nil {
		return a, err
	}
	if a.server, err = tenancypg.NewServer(tenancypg.ServerConfig{Admin: dsn, App: dsn}); err != nil {
		return a, err
	}
	a.tenants, err = catalog.New(a.db, catalog.Config{
		Servers: map[string]catalog.Server{"pg1": a.server},
		Migrator: migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
			own, err := gorm.Open(postgres.New(postgres.Config{Conn: db}), &gorm.Config{Logger: logger.Discard})
			if err != nil {
				return err
			}
			return own.WithContext(ctx).AutoMigrate(&Order{}, &Letter{})
		}),
	})
	if err != nil {
		return a, err
	}
	if err := a.tenants.Migrate(ctx); err != nil {
		return a, err
	}
	a.plugin = tenancy.New(tenancy.Config{Resolver: a.tenants, Engine: tenancypg.Engine{}})
	if err := a.db.Use(a.plugin); err != nil {
		return a, err
	}
	return a, a.openQueue(ctx)
}

// openQueue puts River's tables into the main database.
func (a *app) openQueue(ctx context.Context) error {
	quiet := slog.New(slog.DiscardHandler) // refusals are printed by the story
	driver := riverdatabasesql.New(a.main)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	tenants, err := tenancyriver.New(tenancyriver.Config{
		Main:   []string{remindAll{}.Kind()},
		Check:  a.plugin.Check,
		Snooze: 100 * time.Millisecond, // a minute, outside of an example
	})
	if err != nil {
		return err
	}
	a.queue, err = river.NewClient(driver, &river.Config{
		Middleware:        []rivertype.Middleware{tenants},
		Workers:           workers(a.db, a.tenants),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 4}},
		FetchPollInterval: 100 * time.Millisecond,
		Logger:            quiet,
	})
	if err == nil {
		a.events, _ = a.queue.Subscribe(river.EventKindJobCompleted, river.EventKindJobFailed, river.EventKindJobSnoozed)
	}
	return err
}

// close stops the queue, drops the tenants' databases, and closes the rest.
func (a *app) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var errs []error
	if a.queue != nil {
		errs = append(errs, a.queue.Stop(ctx))
	}
	if a.plugin != nil {
		for _, id := range []string{"acme", "bravo"} {
			_, err := a.tenants.Remove(ctx, id, catalog.RemoveOptions{})
			if !errors.Is(err, tenancy.ErrTenantNotFound) {
				errs = append(errs, err)
			}
		}
		errs = append(errs, a.plugin.Close(ctx))
	}
	if a.server != nil {
		errs = append(errs, a.server.Close())
	}
	if a.main != nil {
		errs = append(errs, a.main.Close())
	}
	return errors.Join(errs...)
}

func (a *app) signUp(ctx context.Context, id string) error {
	_, err := a.tenants.Create(ctx, id, catalog.CreateOptions{})
	return err
}

// request is the context of a web request of the tenant.
func (a *app) request(ctx context.Context, id string) context.Context { return tenant.Pin(ctx, id) }
