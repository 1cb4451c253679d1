package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// app is what a server keeps for as long as it runs.
type app struct {
	out    io.Writer
	place  *place
	db     *gorm.DB
	cat    *catalog.Catalog
	plugin *tenancy.Plugin
	seed   seed
}

// open is what an application does at its start.
func open(ctx context.Context, out io.Writer, p *place, dir string) (_ *app, err error) {
	a := &app{out: out, place: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.db, err = gorm.Open(p.main, &gorm.Config{Logger: logger.Discard}); err != nil {
		return a, err
	}
	if err := p.check(ctx, a.db); err != nil {
		return a, err
	}
	if err := p.openServers(); err != nil {
		return a, err
	}
	a.cat, err = catalog.New(a.db, catalog.Config{
		Servers:  p.servers,
		Migrator: schema(p.servers["one"].Dialector),
		Seed:     a.seed.fill,
		Ready:    1,
		Backup:   catalog.BackupDir(filepath.Join(dir, "backups")),
	})
	if err != nil {
		return a, err
	}
	if err := a.cat.Migrate(ctx); err != nil {
		return a, err
	}
	// The catalog says where tenants are, and tells the plugin what changes.
	a.plugin = tenancy.New(tenancy.Config{Resolver: a.cat, Engine: p.engine})
	if err := a.db.Use(a.plugin); err != nil {
		return a, err
	}
	return a, tenancy.Verify(a.db)
}

// close closes the plugin, drops what this program made, and closes the rest.
func (a *app) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if a.plugin != nil {
		errs = append(errs, a.plugin.Close(ctx))
	}
	if a.cat != nil {
		errs = append(errs, a.place.clean(ctx, a.db, a.cat))
	}
	errs = append(errs, a.place.close())
	if a.db != nil {
		main, err := a.db.DB()
		if err == nil {
			err = main.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// in is the db as the tenant's requests use it: plain GORM from there on.
func (a *app) in(ctx context.Context, id string) *gorm.DB {
	return a.db.WithContext(tenant.Ctx(ctx, id))
}

// notes prints what the tenant has.
func (a *app) notes(ctx context.Context, id string) error {
	var texts []string
	if err := a.in(ctx, id).Model(&Note{}).Order("id").Pluck("text", &texts).Error; err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s has: %s\n", id, strings.Join(texts, "; "))
	return nil
}

// refused prints an error that has to come.
func (a *app) refused(what string, err, want error) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("%s: want the error %q, got %w", what, want, err)
	}
	fmt.Fprintf(a.out, "%s: %v\n", what, err)
	return nil
}
