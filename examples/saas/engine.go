package main

import (
	"context"
	"database/sql"
	"io"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// engine is all that depends on the kind of database.
type engine struct {
	tenancy.Engine
	main   gorm.Dialector
	server interface {
		catalog.Server
		io.Closer
	}
	// queue opens River's driver. A pool that it returns beside is to be closed.
	queue func(main *sql.DB) (riverdriver.Driver[*sql.Tx], io.Closer, error)
}

// onSQLite keeps all databases as files in dir.
func onSQLite(ctx context.Context, dir string) (engine, error) {
	server, err := tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: filepath.Join(dir, "tenants")})
	if err != nil {
		return engine{}, err
	}
	dsn := tenancysqlite.DSN(filepath.Join(dir, "main.db"))
	return engine{
		Engine: tenancysqlite.Engine{},
		main:   sqlite.Open(dsn),
		server: server,
		queue: func(*sql.DB) (riverdriver.Driver[*sql.Tx], io.Closer, error) {
			// River writes often: its writers stand in line for one connection,
			// and not for the file's lock.
			pool, err := sql.Open("sqlite", dsn)
			if err != nil {
				return nil, nil, err
			}
			pool.SetMaxOpenConns(1)
			return riversqlite.New(pool), pool, nil
		},
	}, nil
}

// onPostgres has dsn for the main database, and puts the tenants' databases
// beside it.
func onPostgres(dsn string) (engine, error) {
	// In production the application has a role of its own, without the right to
	// make databases: ServerConfig.App.
	server, err := tenancypg.NewServer(tenancypg.ServerConfig{Admin: dsn, App: dsn})
	if err != nil {
		return engine{}, err
	}
	return engine{
		Engine: tenancypg.Engine{},
		main:   postgres.Open(dsn),
		server: server,
		queue: func(main *sql.DB) (riverdriver.Driver[*sql.Tx], io.Closer, error) {
			return riverdatabasesql.New(main), io.NopCloser(nil), nil
		},
	}, nil
}
