// Package stock opens what the stock command works on, as its configuration
// says.
package stock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/pressly/goose/v3"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/cmd/tenancy/cli"
	"github.com/gorm-tenancy/tenancy/cmd/tenancy/internal/config"
	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// closeTime bounds the wait for what is still in use at the end.
const closeTime = 10 * time.Second

// opening is an application that is being opened: what was opened is closed in
// the reverse order.
type opening struct {
	cfg     *config.Config
	sqlite  bool
	closers []func() error
}

// Open opens what cfg says. No error holds a DSN.
func Open(ctx context.Context, cfg *config.Config) (_ *cli.App, err error) {
	o := &opening{cfg: cfg, sqlite: strings.HasPrefix(cfg.Main, "sqlite:")}
	defer func() {
		if err != nil {
			_ = o.close()
		}
	}()
	db, err := o.main()
	if err != nil {
		return nil, fmt.Errorf("the main database: %w", err)
	}
	servers, access, err := o.servers()
	if err != nil {
		return nil, err
	}
	catCfg := catalog.Config{Servers: servers, Ready: cfg.Ready, Lease: cfg.Lease, Wait: cfg.Wait, Drain: cfg.Drain,
		Tombstones: cfg.Tombstones,
		Logger:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: withoutTime}))}
	engine := tenancy.Engine(tenancypg.Engine{})
	if o.sqlite {
		engine = tenancysqlite.Engine{}
	}
	if catCfg.MainMigrator, err = o.migrator("main", cfg.MainMigrations); err != nil {
		return nil, err
	}
	if catCfg.Migrator, err = o.migrator("tenants", cfg.TenantMigrations); err != nil {
		return nil, err
	}
	if cfg.Backups != "" {
		dir, err := filepath.Abs(cfg.Backups) // the tombstone says where, to processes elsewhere too
		if err != nil {
			return nil, fmt.Errorf("backups: %w", err)
		}
		catCfg.Backup = catalog.BackupDir(dir)
	}
	cat, err := catalog.New(db, catCfg)
	if err != nil {
		return nil, err
	}
	plugin := tenancy.New(tenancy.Config{Resolver: cat, Engine: engine})
	o.closers = append(o.closers, func() error {
		// Not under ctx: it may have ended, and connections must be closed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		return plugin.Close(ctx)
	})
	if err := db.Use(plugin); err != nil {
		return nil, err
	}
	return &cli.App{DB: db, Catalog: cat, Servers: access, Close: o.close}, nil
}

func (o *opening) close() error {
	var errs []error
	for i := len(o.closers) - 1; i >= 0; i-- {
		errs = append(errs, o.closers[i]())
	}
	return errors.Join(errs...)
}

// main opens the main database. tenancypg parses the DSN, because its errors
// hold nothing of it.
func (o *opening) main() (*gorm.DB, error) {
	gormCfg := &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true}
	var dialector gorm.Dialector
	if file, ok := strings.CutPrefix(o.cfg.Main, "sqlite:"); ok {
		if file == "" {
			return nil, errors.New("sqlite: names no file")
		}
		// Several connections use it, so writers have to wait for each other.
		dialector = sqlite.Open(tenancysqlite.DSN(file) + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	} else {
		c, err := (tenancypg.Engine{}).Connector(o.cfg.Main)
		if err != nil {
			return nil, err
		}
		dialector = postgres.New(postgres.Config{Conn: sql.OpenDB(c)})
	}
	db, err := gorm.Open(dialector, gormCfg)
	if err != nil {
		return nil, err
	}
	pool, err := db.DB()
	if err != nil {
		return nil, err
	}
	o.closers = append(o.closers, pool.Close)
	return db, nil
}

func (o *opening) servers() (map[string]catalog.Server, map[string]cli.Access, error) {
	servers, access := map[string]catalog.Server{}, map[string]cli.Access{}
	for name, s := range o.cfg.Servers {
		access[name] = cli.Access{Admin: s.Admin, BinDir: s.BinDir}
		if o.sqlite {
			server, err := tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: s.Dir})
			if err != nil {
				return nil, nil, fmt.Errorf("server %s: %w", name, err)
			}
			o.closers = append(o.closers, server.Close)
			servers[name] = server
			continue
		}
		server, err := tenancypg.NewServer(tenancypg.ServerConfig{App: s.App, Admin: s.Admin, BinDir: s.BinDir, Settings: s.Settings})
		if err != nil {
			return nil, nil, fmt.Errorf("server %s: %w", name, err)
		}
		o.closers = append(o.closers, server.Close)
		servers[name] = server
	}
	return servers, access, nil
}

// migrator is goose on a directory of SQL files; nil without one.
func (o *opening) migrator(what, dir string) (migrate.Migrator, error) {
	if dir == "" {
		return nil, nil
	}
	dialect := goose.DialectPostgres
	if o.sqlite {
		dialect = goose.DialectSQLite3
	}
	m, err := tenancygoose.New(tenancygoose.Config{Dialect: dialect, FS: os.DirFS(dir)})
	if err != nil {
		return nil, fmt.Errorf("migrations.%s, %s: %w", what, dir, err)
	}
	return m, nil
}

// withoutTime leaves the time out of the catalog's warnings: a person reads
// them as they come.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
