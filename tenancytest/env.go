package tenancytest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Env is what one test has: a main database and tenants of its own. It is made
// by [Kit.Env] and ends with the test's cleanup, before the cleanups that were
// registered earlier.
//
// Methods that can fail the test must be called from its own goroutine; DB and
// Resolve from any.
type Env struct {
	// DB is open on the main database, with the plugin in place.
	DB *gorm.DB
	// Plugin is that of DB.
	Plugin *tenancy.Plugin

	tb    TB
	kit   *Kit
	ctx   context.Context // what Tenant and Clone return comes from it
	end   context.CancelCauseFunc
	ended atomic.Pointer[endedError]
	main  *place
	pool  *sql.DB // of DB

	adding  sync.Mutex // held while a tenant is made, and at the end
	mu      sync.Mutex // guards tenants: the plugin resolves on other goroutines
	tenants map[string]*place

	isolated atomic.Int32 // calls of RequireIsolated
}

var _ tenancy.Resolver = (*Env)(nil)

// Option changes an Env that [Kit.Env] is about to make.
type Option func(*options)

type options struct{ cloneMain bool }

// CloneMain makes the main database a copy of its own instead of a sandbox; on
// SQLite it always is.
func CloneMain() Option { return func(o *options) { o.cloneMain = true } }

// Env returns what tb's test needs. The test is skipped if there is no server
// to test on; see the Backend.
func (k *Kit) Env(tb TB, opts ...Option) *Env {
	tb.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if err := k.open(); errors.Is(err, ErrNoServer) {
		tb.Skipf("%v", err)
		return nil
	} else if err != nil {
		tb.Fatalf("%v", err)
		return nil
	}
	e := &Env{tb: tb, kit: k, tenants: map[string]*place{}}
	e.ctx, e.end = context.WithCancelCause(context.Background())
	if err := e.open(o); err != nil {
		e.finish()
		tb.Fatalf("tenancytest: %v", err)
		return nil
	}
	tb.Cleanup(e.finish)
	return e
}

func (e *Env) open(o options) (err error) {
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	if e.main, err = e.kit.main.take(ctx, o.cloneMain, "the main database"); err != nil {
		return fmt.Errorf("the main database: %w", err)
	}
	connector, err := e.connector()
	if err != nil {
		return fmt.Errorf("the main database: %w", err)
	}
	e.pool = sql.OpenDB(connector)
	if e.DB, err = gorm.Open(e.Dialector(), e.kit.cfg.gorm()); err != nil {
		return fmt.Errorf("the main database: %w", err)
	}
	cfg := tenancy.Config{Resolver: e, Engine: e.kit.server.Engine(), MainModels: e.kit.cfg.MainModels}
	if e.kit.cfg.Plugin != nil {
		e.kit.cfg.Plugin(&cfg)
	}
	e.Plugin = tenancy.New(cfg)
	if err := e.DB.Use(e.Plugin); err != nil {
		return err
	}
	return e.watchEnd()
}

// connector is that of the main database.
func (e *Env) connector() (driver.Connector, error) {
	if e.main.sandbox != nil {
		return e.main.connector, nil
	}
	return e.kit.server.Engine().Connector(e.main.DSN())
}

// Dialector returns GORM's dialector for the main database, for applications
// that open their own *gorm.DB. Its connections are those of DB, and are closed
// at the test's end.
func (e *Env) Dialector() gorm.Dialector { return e.kit.server.Dialector(e.pool) }

// Engine returns what [tenancy.Config.Engine] has to be, for applications that
// use a plugin of their own, with the Env as its Resolver.
func (e *Env) Engine() tenancy.Engine { return e.kit.server.Engine() }

// Tenant returns a context of the tenant id, whose database is empty but for
// what the migrations make: a sandbox, whose content is gone after the test.
// Later calls with the same id return a context of the same database.
func (e *Env) Tenant(id string) context.Context {
	e.tb.Helper()
	return e.provide(id, false)
}

// Clone is Tenant for a tenant with a database of its own, copied from the
// template: for what does not go well in one transaction.
func (e *Env) Clone(id string) context.Context {
	e.tb.Helper()
	return e.provide(id, true)
}

// Two returns contexts of two tenants, "a" and "b", for tests of what must not
// pass from one to the other.
func (e *Env) Two() (a, b context.Context) {
	e.tb.Helper()
	return e.Tenant("a"), e.Tenant("b")
}

func (e *Env) provide(id string, own bool) context.Context {
	e.tb.Helper()
	if err := e.add(id, own, nil); err != nil {
		e.tb.Fatalf("tenancytest: tenant %q: %v", id, err)
	}
	return tenant.Ctx(e.ctx, id)
}

// add makes a tenant. Its statements are noted in l, if that is not nil.
func (e *Env) add(id string, own bool, l *ledger) error {
	if err := tenant.Validate(id); err != nil {
		return err
	}
	e.adding.Lock()
	defer e.adding.Unlock()
	if ended := e.ended.Load(); ended != nil {
		return ended
	}
	if p := e.tenant(id); p != nil {
		if own && p.sandbox != nil {
			return errors.New("it has a sandbox already; call Clone before Tenant")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(e.ctx, callTimeout)
	defer cancel()
	p, err := e.kit.tenant.take(ctx, own, "tenant "+id)
	if err != nil {
		return err
	}
	p.ledger = l
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tenants[id] = p
	return nil
}

func (e *Env) tenant(id string) *place {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tenants[id]
}

// Resolve implements [tenancy.Resolver]: of the tenants that [Env.Tenant] and
// [Env.Clone] have made, and of no others.
func (e *Env) Resolve(_ context.Context, id string) (tenancy.Database, error) {
	if ended := e.ended.Load(); ended != nil {
		return tenancy.Database{}, ended
	}
	p := e.tenant(id)
	if p == nil {
		return tenancy.Database{}, fmt.Errorf("%w: the test has not made it; call Env.Tenant(%q) first", tenancy.ErrTenantNotFound, id)
	}
	d := tenancy.Database{Identity: p.Identity(), Schema: e.kit.tenant.version}
	if p.sandbox == nil {
		d.DSN = p.DSN()
		return d, e.note(&d, p, id)
	}
	d.Connector = p.connector
	d.Server = e.kit.server.Engine().Server(p.DSN())
	return d, nil
}

// note makes connections to a copy write to its ledger, if it has one.
func (e *Env) note(d *tenancy.Database, p *place, id string) error {
	if p.ledger == nil {
		return nil
	}
	engine := e.kit.server.Engine()
	c, err := engine.Connector(d.DSN)
	if err != nil {
		return err
	}
	d.Server = engine.Server(d.DSN)
	d.DSN, d.Connector = "", p.ledger.watch(c, id)
	return nil
}

// DSN returns the DSN of a tenant that [Env.Clone] has made, for what opens its
// own connections. Around a sandbox it would lead to what all tests share, so
// that fails the test.
func (e *Env) DSN(id string) string {
	e.tb.Helper()
	switch p := e.tenant(id); {
	case p == nil:
		e.tb.Fatalf("tenancytest: tenant %q: the test has not made it; call Env.Clone(%q) first", id, id)
	case p.sandbox != nil:
		e.tb.Fatalf("tenancytest: tenant %q has a sandbox; a DSN would lead around it: call Env.Clone(%q) instead of Tenant", id, id)
	default:
		return p.DSN()
	}
	return ""
}

// MainDSN is DSN for the main database, and wants [CloneMain].
func (e *Env) MainDSN() string {
	e.tb.Helper()
	if e.main.sandbox != nil {
		e.tb.Fatalf("tenancytest: the main database is a sandbox; a DSN would lead around it: use kit.Env(t, tenancytest.CloneMain())")
		return ""
	}
	return e.main.DSN()
}
