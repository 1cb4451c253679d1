package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// Config is what [New] needs. Only Servers is required.
type Config struct {
	// Servers are the places where tenants' databases are, by the names that
	// rows of the catalog use. A name is for ever; what it leads to may
	// change. Credentials are here and nowhere in the main database.
	Servers map[string]Server

	// Migrator makes the schema of a new tenant, and brings the tenants that are
	// there forward: [Catalog.MigrateTenants]. Defaults to nil: new databases are
	// empty.
	Migrator migrate.Migrator
	// MainMigrator makes the schema of the main database, for
	// [Catalog.MigrateMain]. Defaults to nil: somebody else does that.
	MainMigrator migrate.Migrator
	// MainLocker keeps several processes from doing so at once. Defaults to the
	// first of Servers that is one, and of the main database's dialect.
	MainLocker migrate.MainLocker
	// NoTemplates makes every new database from nothing by the Migrator,
	// instead of copying a template that the Migrator has made once. It is
	// several times slower. For migrations that must see their own tenant.
	NoTemplates bool
	// Seed fills a new tenant's database before it is served. It may be called
	// again for the same tenant, after it failed or the process died, so it
	// must be safe to repeat. db has the administrator's rights.
	Seed func(ctx context.Context, db *gorm.DB, t Tenant) error
	// Placement picks the server of a new tenant. Defaults to [LeastTenants].
	Placement Placement
	// Ready is how many databases [Catalog.Run] and [Catalog.FillReady] keep
	// ready on each server, so that a new tenant gets one at once. Defaults
	// to 0.
	Ready int

	// Backup is called before a tenant's database is dropped. dump writes the
	// database, in the format that Restore reads. What it returns is kept in
	// the tombstone. An error stops the removal. [BackupDir] is a ready one.
	// Defaults to nil: no backup.
	Backup func(ctx context.Context, t Tenant, dump func(io.Writer) error) (location string, err error)
	// Drain is how long work in flight may go on when a tenant is suspended or
	// removed, before its connections are ended. Defaults to 5 seconds;
	// negative means not at all.
	Drain time.Duration
	// Tombstones is how long the row of a removed tenant is kept. Defaults to
	// 90 days.
	Tombstones time.Duration

	// Lease is how long a process that is at work on a tenant may be silent
	// before another one takes the work over. It renews its lease three times
	// as often. Defaults to 30 seconds, by the main database's clock.
	Lease time.Duration
	// Wait is how long an operation waits for another one on the same tenant.
	// Defaults to 1 minute. The ctx counts too.
	Wait time.Duration
	// Creates and Drops are how many databases of one server this process
	// makes, and drops, at the same time. Making one costs the server a copy
	// of the template, dropping one a checkpoint. Default to 4 and 2.
	Creates, Drops int

	// Listener hears of changes on the main database. Defaults to the first of
	// Servers that is one, if the main database is on PostgreSQL.
	Listener Listener
	// Poll is how often [Catalog.Watch] asks the main database for changes
	// while it can't hear of them: on SQLite, behind a connection pooler in
	// transaction mode, and while the connection is lost. It is also how long
	// a look-up is remembered when nobody watches. Defaults to 1 second.
	Poll time.Duration
	// Remember is how many look-ups are remembered. It should exceed
	// tenancy.Limits.MaxPools. Defaults to 10,000, of some 300 bytes each.
	Remember int

	// Logger gets what no caller is told: that news was lost, that the
	// catalog's own clean-up failed. Defaults to slog.Default().
	Logger *slog.Logger

	// at is told before and after each step: tests kill the process there.
	at func(task Task, step string, after bool)

	// only is the one server, where there is nothing to place.
	only string
}

func (cfg Config) withDefaults() Config {
	durations := []struct {
		d    *time.Duration
		zero time.Duration
	}{
		{&cfg.Drain, 5 * time.Second},
		{&cfg.Tombstones, 90 * 24 * time.Hour},
		{&cfg.Lease, 30 * time.Second},
		{&cfg.Wait, time.Minute},
		{&cfg.Poll, time.Second},
	}
	for _, x := range durations {
		if *x.d == 0 {
			*x.d = x.zero
		}
	}
	cfg.Drain = max(cfg.Drain, 0)
	cfg.only = ""
	if cfg.Placement == nil && len(cfg.Servers) == 1 {
		cfg.only = sortedKeys(cfg.Servers)[0]
	}
	if cfg.Placement == nil {
		cfg.Placement = LeastTenants
	}
	if cfg.Creates == 0 {
		cfg.Creates = 4
	}
	if cfg.Drops == 0 {
		cfg.Drops = 2
	}
	if cfg.Remember == 0 {
		cfg.Remember = 10_000
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.at == nil {
		cfg.at = func(Task, string, bool) {}
	}
	return cfg
}

func (cfg Config) validate() error {
	if len(cfg.Servers) == 0 {
		return errors.New("Config.Servers is empty: name the servers that tenants' databases are on")
	}
	for name, s := range cfg.Servers {
		if name == "" {
			return errors.New("Config.Servers has a server without a name")
		}
		if s == nil {
			return fmt.Errorf("Config.Servers[%q] is nil", name)
		}
	}
	for name, v := range map[string]int64{
		"Ready": int64(cfg.Ready), "Creates": int64(cfg.Creates), "Drops": int64(cfg.Drops),
		"Remember": int64(cfg.Remember), "Tombstones": int64(cfg.Tombstones), "Lease": int64(cfg.Lease),
		"Wait": int64(cfg.Wait), "Poll": int64(cfg.Poll),
	} {
		if v < 0 {
			return fmt.Errorf("%s is negative", "Config."+name)
		}
	}
	if cfg.Lease > 0 && cfg.Lease < 100*time.Millisecond {
		return errors.New("Config.Lease is shorter than 100 ms")
	}
	return nil
}

// Catalog is the list of tenants in the main database, and all that can be
// done to them. It is a tenancy.Resolver and a tenancy.Watcher. Its methods may
// be called from any goroutine, and by any number of processes at once.
type Catalog struct {
	cfg     Config
	store   *store
	main    *gorm.DB // for the hooks' *gorm.DB: naming, logger
	lookups *lookups
	id      atomic.Pointer[string]
	making  map[string]chan struct{} // per server, a place for each of Creates
	drops   map[string]chan struct{}
	moving  chan struct{} // a move holds sessions of two servers: one at a time
	claimed chan struct{} // wakes Run: a ready database is gone
}

// New returns the catalog in the main database db: what gorm.Open returned,
// before or after db.Use. It does no I/O; call [Catalog.Migrate] once before
// the rest.
func New(db *gorm.DB, cfg Config) (*Catalog, error) {
	if db == nil {
		return nil, errors.New("catalog: db is nil")
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	d, ok := dialects[db.Name()]
	if !ok {
		return nil, fmt.Errorf("catalog: the main database has the dialect %q; only postgres and sqlite are supported", db.Name())
	}
	sqlDB, err := db.DB()
	if err != nil {
		return nil, fmt.Errorf("catalog: the main database's *sql.DB: %w", err)
	}
	cfg = cfg.withDefaults()
	if cfg.Listener == nil && d.name == "postgres" {
		for _, name := range sortedKeys(cfg.Servers) {
			if l, ok := cfg.Servers[name].(Listener); ok {
				cfg.Listener = l
				break
			}
		}
	}
	if cfg.MainLocker == nil {
		for _, name := range sortedKeys(cfg.Servers) {
			if l, ok := cfg.Servers[name].(migrate.MainLocker); ok && cfg.Servers[name].Dialector(nil).Name() == d.name {
				cfg.MainLocker = l
				break
			}
		}
	}
	c := &Catalog{
		cfg:     cfg,
		store:   &store{db: sqlDB, d: d},
		main:    db,
		lookups: newLookups(cfg.Remember, cfg.Poll),
		making:  map[string]chan struct{}{},
		drops:   map[string]chan struct{}{},
		moving:  make(chan struct{}, 1),
		claimed: make(chan struct{}, 1),
	}
	for name := range cfg.Servers {
		c.making[name] = make(chan struct{}, cfg.Creates)
		c.drops[name] = make(chan struct{}, cfg.Drops)
	}
	return c, nil
}

// catalogID is read once; Migrate makes it.
func (c *Catalog) catalogID(ctx context.Context) (string, error) {
	if id := c.id.Load(); id != nil {
		return *id, nil
	}
	id, err := c.store.catalogID(ctx)
	if err != nil {
		return "", c.mainError("open", err)
	}
	c.id.Store(&id)
	return id, nil
}
