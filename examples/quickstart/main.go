// Command quickstart shows what the module does, on SQLite: nothing to install,
// nothing left behind.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// app is what a server keeps for as long as it runs: one db for all tenants.
type app struct {
	out    io.Writer
	db     *gorm.DB
	plugin *tenancy.Plugin
}

// run does everything in a directory that it removes.
func run(out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "quickstart-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	ctx := context.Background()
	a, err := open(ctx, out, dir)
	if err != nil {
		return err
	}
	defer func() {
		if closing := a.close(); err == nil {
			err = closing
		}
	}()
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"migrate: main first, then every tenant", a.migrate},
		{"write and read", a.use},
		{"what is refused", a.refusals},
		{"the pools that are open now", a.stats},
	} {
		fmt.Fprintf(out, "\n== %s\n", step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	return nil
}

// open makes the databases, opens the main one and installs the plugin.
func open(ctx context.Context, out io.Writer, dir string) (*app, error) {
	tenants := tenancy.Static{}
	for _, id := range []string{"acme", "bravo"} {
		path := filepath.Join(dir, id+".db") // ids that we chose ourselves
		if err := tenancysqlite.Create(ctx, path); err != nil {
			return nil, err
		}
		tenants[id] = tenancy.Database{DSN: tenancysqlite.DSN(path)}
	}
	// The main database is opened as always. The logger is silent because the
	// refusals below are printed by themselves.
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")), &gorm.Config{
		Logger: logger.Default.LogMode(logger.Silent),
	})
	if err != nil {
		return nil, err
	}
	a := &app{out: out, db: db, plugin: tenancy.New(tenancy.Config{
		Resolver:   tenants,
		Engine:     tenancysqlite.Engine{},
		MainModels: []any{&Plan{}},
	})}
	if err := db.Use(a.plugin); err != nil {
		return nil, err
	}
	return a, tenancy.Verify(db)
}

// close closes the tenants' pools, then the main database.
func (a *app) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := a.plugin.Close(ctx); err != nil {
		return err
	}
	main, err := a.db.DB() // the main database's
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "closed: %d pools are open\n", a.plugin.Stats().Pools)
	return main.Close()
}
