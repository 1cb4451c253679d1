// Command command is a small shop's own command: that of package cli, with the
// shop's migrations in SQL and Go, its models and its seed.
//
//	go run . migrate
//	go run . create acme --label plan=gold
//	go run . exec 'SELECT * FROM orders'
//	go run . reset
//	go run . --help
//
// It is on SQLite, in the directory that --data names: by default one below that
// for temporary files.
package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"github.com/spf13/pflag"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/cmd/tenancy/cli"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

func main() { os.Exit(run()) }

func run() int {
	var data string
	cmd := cli.New(cli.Options{
		Name: "shop",
		Flags: func(f *pflag.FlagSet) {
			f.StringVar(&data, "data", filepath.Join(os.TempDir(), "tenancy-shop"), "the directory of all databases")
		},
		Open:    func(ctx context.Context) (*cli.App, error) { return open(ctx, data) },
		Aliases: map[string][]string{"create": {"signup"}},
		Reset:   emptyMain,
	})
	return cli.Execute(context.Background(), cmd)
}

// open is what the shop does at its start, be it the server or the command.
func open(ctx context.Context, data string) (*cli.App, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	file := tenancysqlite.DSN(filepath.Join(data, "main.db"))
	db, err := gorm.Open(sqlite.Open(file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"),
		&gorm.Config{Logger: logger.Discard})
	if err != nil {
		return nil, err
	}
	server, err := tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: filepath.Join(data, "tenants")})
	if err != nil {
		return nil, err
	}
	main, tenants, err := migrators()
	if err != nil {
		return nil, err
	}
	cat, err := catalog.New(db, catalog.Config{
		Servers:      map[string]catalog.Server{"disk": server},
		MainMigrator: main,
		Migrator:     tenants,
		Seed:         seed,
		Backup:       catalog.BackupDir(filepath.Join(data, "backups")),
	})
	if err != nil {
		return nil, err
	}
	plugin := tenancy.New(tenancy.Config{Resolver: cat, Engine: tenancysqlite.Engine{}, MainModels: []any{&Plan{}}})
	if err := db.Use(plugin); err != nil {
		return nil, err
	}
	pool, err := db.DB()
	if err != nil {
		return nil, err
	}
	return &cli.App{DB: db, Catalog: cat, Close: func() error {
		return errors.Join(plugin.Close(context.WithoutCancel(ctx)), server.Close(), pool.Close())
	}}, nil
}
