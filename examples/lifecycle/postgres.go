package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// dsns are what the command line names.
type dsns struct{ admin, app, admin2, app2 string }

// onPostgres is one server, or two.
func onPostgres(ctx context.Context, d dsns) (*place, error) {
	at := func(admin, app string) func() (server, error) {
		if app == "" {
			app = admin
		}
		return func() (server, error) {
			return tenancypg.NewServer(tenancypg.ServerConfig{Admin: admin, App: app})
		}
	}
	p := &place{
		main:   postgres.Open(d.admin),
		engine: tenancypg.Engine{},
		open:   map[string]func() (server, error){"one": at(d.admin, d.app)},
	}
	if d.admin2 != "" {
		p.open["two"] = at(d.admin2, d.app2)
	}
	var legacy string
	p.check = func(ctx context.Context, main *gorm.DB) error {
		var there bool
		err := main.WithContext(ctx).Raw("SELECT to_regclass('tenancy_catalog') IS NOT NULL").Scan(&there).Error
		if err == nil && there {
			err = errors.New("the main database has a catalog already, which this program would drop: name another one")
		}
		return err
	}
	p.legacy = func(ctx context.Context, text string) (string, error) {
		u, err := url.Parse(d.admin)
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			// The error would repeat the DSN, and its password.
			return "", errors.New("-dsn must be a URL: postgres://admin:password@host:5432/main")
		}
		name := "lifecycle_" + strings.ToLower(rand.Text()[:16])
		if err := exec(ctx, d.admin, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
			return "", err
		}
		legacy = name
		u.Path = "/" + name
		return name, fillLegacy(ctx, postgres.Open(u.String()), text)
	}
	p.clean = func(ctx context.Context, main *gorm.DB, cat *catalog.Catalog) error {
		errs := []error{dropDatabases(ctx, p, main, cat)}
		if legacy != "" {
			errs = append(errs, exec(ctx, d.admin, "DROP DATABASE IF EXISTS "+pgx.Identifier{legacy}.Sanitize()))
		}
		return errors.Join(append(errs, exec(ctx, d.admin,
			"DROP TABLE IF EXISTS tenancy_tenants, tenancy_catalog, tenancy_run_members, tenancy_runs, tenancy_halts, tenancy_checkpoints; DROP FUNCTION IF EXISTS tenancy_tenants_notify"))...)
	}
	return p, nil
}

// dropDatabases drops every database of the catalog. No application does that:
// it removes its tenants one by one.
func dropDatabases(ctx context.Context, p *place, main *gorm.DB, cat *catalog.Catalog) error {
	var rows []catalog.Tenant
	for t, err := range cat.List(ctx, catalog.Filter{}) {
		if err != nil {
			return err
		}
		rows = append(rows, t)
	}
	for _, t := range rows {
		session, err := p.servers[t.Server].Session(ctx, t.Database, false)
		if err != nil {
			return err
		}
		if err := errors.Join(session.Drop(ctx), session.Close()); err != nil {
			return err
		}
	}
	// What is left is the templates. A catalog without a Migrator has no use for
	// them, so to it they are orphans.
	bare, err := catalog.New(main, catalog.Config{Servers: p.servers})
	if err != nil {
		return err
	}
	found, err := bare.Audit(ctx)
	if err != nil {
		return err
	}
	for _, o := range found.Orphans {
		if o.Ours {
			if err := bare.DropOrphan(ctx, o, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func exec(ctx context.Context, dsn, sql string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("the administrator can't connect: %w", err)
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}
