package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	tenancyprometheus "github.com/gorm-tenancy/tenancy/contrib/prometheus"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
)

// app is what the server keeps for as long as it runs.
type app struct {
	cfg     config
	log     *slog.Logger
	db      *gorm.DB // the one of all tenants
	tenants *catalog.Catalog
	plugin  *tenancy.Plugin
	queue   *river.Client[*sql.Tx]
	status  *tenancystatus.Page
	metrics *prometheus.Registry

	stop    context.CancelFunc
	running sync.WaitGroup
	closers []io.Closer
}

// config is what the command line says.
type config struct {
	base     string // the domain of sign-up; tenants are one label below
	operator string // the password of the operators' pages
}

// open is what an application does at its start. What it returns is to be
// closed, also with an error.
func open(ctx context.Context, log *slog.Logger, e engine, cfg config) (a *app, err error) {
	a = &app{cfg: cfg, log: log, closers: []io.Closer{e.server}}
	if a.db, err = gorm.Open(e.main, &gorm.Config{
		Logger: logger.NewSlogLogger(log, logger.Config{LogLevel: logger.Error, IgnoreRecordNotFoundError: true,
			ParameterizedQueries: true}), // values are people's data
	}); err != nil {
		return a, err
	}
	main, err := a.db.DB()
	if err != nil {
		return a, err
	}
	a.closers = append(a.closers, main)

	// The catalog makes tenants' databases, and says where they are.
	a.tenants, err = catalog.New(a.db, catalog.Config{
		Servers:      map[string]catalog.Server{"one": e.server},
		MainMigrator: migrate.Func(1, migrateMain(e)),
		Migrator: migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
			own, err := gorm.Open(e.server.Dialector(db), &gorm.Config{Logger: logger.Discard})
			if err != nil {
				return err
			}
			return own.WithContext(ctx).AutoMigrate(tenantModels...)
		}),
		Seed:   a.addOwner,
		Ready:  2, // so that a sign-up takes milliseconds
		Logger: log,
	})
	if err != nil {
		return a, err
	}
	if err := a.tenants.Migrate(ctx); err != nil {
		return a, err
	}
	// First the main database, then all tenants. With nothing to do it is a query.
	if _, err := a.tenants.MigrateAll(ctx, migrate.Options{}); err != nil {
		return a, fmt.Errorf("migrating: %w", err)
	}

	observer := tenancyprometheus.NewObserver()
	a.plugin = tenancy.New(tenancy.Config{
		Resolver:   a.tenants,
		Engine:     e.Engine,
		MainModels: mainModels,
		SQLComment: true,
		Observer:   observer,
	})
	if err := a.db.Use(a.plugin); err != nil {
		return a, err
	}
	if err := tenancy.Verify(a.db); err != nil {
		return a, err
	}
	if a.status, err = tenancystatus.New(tenancystatus.Config{Plugin: a.plugin}); err != nil {
		return a, err
	}
	a.metrics = prometheus.NewRegistry()
	if err := errors.Join(a.metrics.Register(tenancyprometheus.NewCollector(a.plugin, tenancyprometheus.Options{})),
		a.metrics.Register(observer)); err != nil {
		return a, err
	}
	if err := a.openQueue(ctx, e, main); err != nil {
		return a, err
	}
	return a, a.start()
}

// migrateMain makes the tables of the main database, but for those of the
// catalog and of River, which have migrations of their own.
func migrateMain(e engine) func(ctx context.Context, db *sql.DB) error {
	return func(ctx context.Context, db *sql.DB) error {
		main, err := gorm.Open(e.server.Dialector(db), &gorm.Config{Logger: logger.Discard})
		if err != nil {
			return err
		}
		main = main.WithContext(ctx)
		if err := main.AutoMigrate(mainModels...); err != nil {
			return err
		}
		return main.Clauses(clause.OnConflict{DoNothing: true}).Create(&plans).Error
	}
}

// start begins what goes on beside the requests.
func (a *app) start() error {
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	a.running.Go(func() { _ = a.tenants.Run(ctx) }) // ends with ctx
	return a.queue.Start(ctx)
}

// close lets running work finish, for as long as ctx goes.
func (a *app) close(ctx context.Context) error {
	var errs []error
	if a.stop != nil {
		errs = append(errs, a.queue.Stop(ctx))
		a.stop()
		a.running.Wait()
	}
	if a.status != nil {
		a.status.Close()
	}
	if a.plugin != nil {
		errs = append(errs, a.plugin.Close(ctx))
	}
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i].Close())
	}
	return errors.Join(errs...)
}
