package tenancy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"gorm.io/gorm"
)

// pluginName is what gorm lists the plugin under.
const pluginName = "tenancy"

// Plugin routes the statements of one *gorm.DB to the database of the tenant
// in their context. It is made by [New], installed by db.Use and closed by
// [Plugin.Close]. Its methods may be called from any goroutine.
type Plugin struct {
	cfg     Config
	bad     error // of New's Config
	opener  *dbOpener
	cache   *cache
	servers *servers
	router  *router

	// Set by Initialize, read-only after.
	db     *gorm.DB
	config *gorm.Config
	main   gorm.ConnPool // of the main database, as db was opened; no PreparedStmtDB
	mainDB *sql.DB       // the same, if it is one or has one
	models *mainModels

	mu          sync.Mutex // guards initialized
	initialized bool

	txs       sync.Map // *gorm.Statement to *begunTx, while its callbacks run
	refused   atomic.Uint64
	mainPools atomic.Pointer[map[gorm.ConnPool]struct{}] // main's and dbresolver's
	stop      context.CancelFunc                         // ends the Watch loop
	watching  sync.WaitGroup
}

// New returns a plugin for one *gorm.DB. A Config that is not good is an error
// of db.Use.
func New(cfg Config) *Plugin {
	p := &Plugin{cfg: cfg.withDefaults(), bad: cfg.validate()}
	p.servers = newServers(p.cfg.Pools, p.observe)
	p.opener = &dbOpener{resolver: p.cfg.Resolver, engine: p.cfg.Engine, limits: p.cfg.Pools, servers: p.servers,
		schema: p.cfg.Schema, forward: newForward(p.cfg.Schema, p.observe), policy: p.cfg.ReplicaPolicy, comment: p.cfg.SQLComment, observe: p.observe}
	p.cache = newCache(p.opener, p.observe, p.cfg.Pools, p.cfg.Recheck)
	p.opener.stale = p.doubt
	if s, ok := p.cfg.Resolver.(Static); ok {
		p.opener.replicated.Store(s.replicated())
	}
	p.router = newRouter(p)
	return p
}

// Name returns "tenancy". It implements gorm.Plugin.
func (p *Plugin) Name() string { return pluginName }

// From returns the plugin that db uses.
func From(db *gorm.DB) (*Plugin, bool) {
	if db == nil || db.Config == nil {
		return nil, false
	}
	p, ok := db.Plugins[pluginName].(*Plugin)
	return p, ok
}

// Initialize installs the router and the callbacks. It implements gorm.Plugin
// and is called by db.Use, or by gorm.Open for what is in Config.Plugins.
func (p *Plugin) Initialize(db *gorm.DB) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bad != nil {
		return p.bad
	}
	if p.initialized {
		return p.again(db)
	}
	if p.isReplica(db) {
		return nil
	}
	if db.ConnPool == nil || db.Statement == nil {
		return errors.New("tenancy: db has no connection pool; open it on the main database first")
	}
	if d, ok := p.cfg.Engine.(Dialect); ok && d.Dialect() != db.Name() {
		return fmt.Errorf("tenancy: Config.Engine is for %s but db was opened with the %s dialect; the main database and the tenants' must be of one kind", d.Dialect(), db.Name())
	}
	if _, ok := db.Statement.ConnPool.(gorm.TxCommitter); ok {
		return errors.New("tenancy: db is in a transaction; call Use on what gorm.Open returned")
	}
	if _, ok := db.Plugins["gorm:caches"]; ok {
		return errors.New("tenancy: the plugin gorm:caches keys results by SQL text alone and would answer one tenant with another's rows; remove it")
	}
	models, err := newMainModels(db, p.cfg.MainModels)
	if err != nil {
		return fmt.Errorf("tenancy: %w", err)
	}
	p.models = models
	p.db, p.config = db, db.Config
	p.main = plainPool(db.ConnPool)
	if prepared, ok := db.ConnPool.(*gorm.PreparedStmtDB); ok {
		prepared.Close() // what is cached by SQL text alone must not be found again
	}
	p.mainDB, _ = db.DB()
	p.initialized = true
	if err := p.install(db); err != nil {
		return err
	}
	p.watch(db.Statement.Context)
	return nil
}

// again is a later Initialize. Opening another database with a copy of db's
// gorm.Config, as dbresolver does for its replicas, initializes its plugins
// there: that other db is none of ours.
func (p *Plugin) again(db *gorm.DB) error {
	switch {
	case db.Config == p.config:
		// gorm.Open with db's own Config has replaced db's pool and callbacks.
		if err := p.install(p.db); err != nil {
			return err
		}
		return errors.New("tenancy: gorm.Open was given the gorm.Config of a db that uses tenancy; give each db a Config of its own")
	case reflect.ValueOf(db.Plugins).Pointer() == reflect.ValueOf(p.config.Plugins).Pointer():
		return nil
	}
	return errors.New("tenancy: the plugin is in use on another db; make one with tenancy.New for each")
}

// install puts the router and the callbacks into db.
func (p *Plugin) install(db *gorm.DB) error {
	// gorm puts db.ConnPool back into the statement after each default
	// transaction (gorm callbacks/transaction.go, CommitOrRollbackTransaction),
	// so both have to be the router.
	db.Config.ConnPool = p.router
	db.Statement.ConnPool = p.router
	return p.register(db)
}

// watch follows the Resolver's news.
func (p *Plugin) watch(ctx context.Context) {
	ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	w, ok := p.cfg.Resolver.(Watcher)
	if !ok {
		return
	}
	p.watching.Go(func() {
		const shortest, longest = time.Second, 30 * time.Second
		for pause := shortest; ; pause = min(2*pause, longest) {
			began := time.Now()
			err := runWatch(ctx, w, func(id string) { p.cache.evict(id, CauseChanged) })
			if ctx.Err() != nil {
				return
			}
			p.observe(Event{Kind: EventFailed, Err: fmt.Errorf("tenancy: watching the resolver: %w", err)})
			if time.Since(began) > longest {
				pause = shortest
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			p.cache.recheckAll() // news may have been missed
		}
	})
}

func runWatch(ctx context.Context, w Watcher, changed func(string)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("Watch panicked: %v", r)
		}
	}()
	if err = w.Watch(ctx, changed); err == nil {
		err = errors.New("Watch returned")
	}
	return err
}

// doubt is called when the tenant's database says that it is not the tenant's.
func (p *Plugin) doubt(id string) {
	if f, ok := p.cfg.Resolver.(Forgetter); ok {
		f.Forget(id)
	}
	p.cache.doubt(id)
}

// Evict retires the tenant's pool now, and reports whether it was open. Work
// in flight finishes on it; the next statement resolves the tenant again.
// A migration of [Config.Schema] that failed is tried again then, too.
func (p *Plugin) Evict(id string) bool {
	p.opener.forward.forgive(id)
	return p.cache.evict(id, CauseEvicted)
}

// Drain is Evict, and waits until the last physical connection of the tenant's
// retired pools is gone, or ctx ends. It keeps nobody from opening the tenant
// again: first make the Resolver say [ErrTenantSuspended].
func (p *Plugin) Drain(ctx context.Context, id string) error {
	p.opener.forward.forgive(id)
	return p.cache.drain(ctx, id)
}

// OpenDB opens the tenant's database for the caller alone, who closes it: for
// tools that want a *sql.DB. It is not kept in the cache, so Evict and Drain
// don't reach it, and a tenant that moves leaves it behind. It is not held
// against [Config.Schema]: what mends a tenant's schema needs it.
func (p *Plugin) OpenDB(ctx context.Context, id string) (*sql.DB, error) {
	if err := checkID("open", id); err != nil {
		return nil, err
	}
	if p.cache.isClosed() {
		return nil, &Error{Op: "open", Tenant: id, Err: ErrClosed}
	}
	return p.opener.openDB(ctx, id)
}

// Close refuses new work, retires every pool and waits until all connections
// to tenants' databases are gone, or ctx ends. Work in flight finishes, but
// pools that are being opened, and a migration for that, are given up. The
// main database stays open; it is the caller's. Close may be called again.
func (p *Plugin) Close(ctx context.Context) error {
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
	if err := p.cache.close(ctx); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		p.watching.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return &Error{Op: "close", Cause: causeOf(ctx), Detail: "the Resolver's Watch has not returned",
			Hint: "let Watch return when its context ends"}
	}
}
