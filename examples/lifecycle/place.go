package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// place is where the databases are: all that differs between SQLite and
// PostgreSQL.
type place struct {
	main    gorm.Dialector
	engine  tenancy.Engine
	servers map[string]catalog.Server
	open    map[string]func() (server, error) // by the names of servers
	closers []io.Closer

	// check finds out that nothing of another program is in the way.
	check func(ctx context.Context, main *gorm.DB) error
	// legacy makes a database that the catalog knows nothing of, on server
	// "one", with one note in it, and returns its name.
	legacy func(ctx context.Context, text string) (string, error)
	// clean drops what was made.
	clean func(ctx context.Context, main *gorm.DB, cat *catalog.Catalog) error
}

type server interface {
	catalog.Server
	io.Closer
}

func (p *place) openServers() error {
	p.servers = map[string]catalog.Server{}
	for name, open := range p.open {
		s, err := open()
		if err != nil {
			return err
		}
		p.servers[name] = s
		p.closers = append(p.closers, s)
	}
	return nil
}

func (p *place) close() error {
	var errs []error
	for _, c := range p.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// onSQLite is two directories in dir, and nothing to clean but dir.
func onSQLite(dir string) *place {
	one := filepath.Join(dir, "one")
	in := func(dir string) func() (server, error) {
		return func() (server, error) { return tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: dir}) }
	}
	return &place{
		// Several connections use the main database, so writers have to wait
		// for each other.
		main: sqlite.Open(filepath.Join(dir, "main.db") +
			"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"),
		engine: tenancysqlite.Engine{},
		open:   map[string]func() (server, error){"one": in(one), "two": in(filepath.Join(dir, "two"))},
		check:  func(context.Context, *gorm.DB) error { return nil },
		clean:  func(context.Context, *gorm.DB, *catalog.Catalog) error { return nil },
		legacy: func(ctx context.Context, text string) (string, error) {
			const name = "old-customer.db"
			path := filepath.Join(one, name)
			if err := tenancysqlite.Create(ctx, path); err != nil {
				return "", err
			}
			return name, fillLegacy(ctx, sqlite.Open(path), text)
		},
	}
}

// fillLegacy is another program's.
func fillLegacy(ctx context.Context, to gorm.Dialector, text string) error {
	db, err := gorm.Open(to, &gorm.Config{})
	if err != nil {
		return err
	}
	pool, err := db.DB()
	if err != nil {
		return err
	}
	db = db.WithContext(ctx)
	return errors.Join(db.AutoMigrate(&Note{}), db.Create(&Note{Text: text}).Error, pool.Close())
}
