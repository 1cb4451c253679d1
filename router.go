package tenancy

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// router is the gorm.ConnPool that db.ConnPool and every statement hold. It
// has no connection of its own: each call takes the tenant from its ctx,
// leases that tenant's pool, runs, and gives the lease back. Without a tenant
// it refuses, so what slips past the callbacks fails closed.
type router struct {
	p *Plugin
	// The pools of statements that may run on a replica; see mayRead.
	reader, guesser reader
}

func newRouter(p *Plugin) *router {
	r := &router{p: p}
	r.reader = reader{router: r}
	r.guesser = reader{router: r, guess: true}
	return r
}

var (
	_ gorm.ConnPool         = (*router)(nil)
	_ gorm.ConnPoolBeginner = (*router)(nil)
	_ gorm.GetDBConnector   = (*router)(nil)
)

// lease finds where ctx leads: a tenant's leased entry, or the main database
// (no entry). The caller releases the entry.
func (r *router) lease(ctx context.Context, op string) (*entry, error) {
	sc := scope.From(ctx)
	if sc.Main && !sc.Conflicted {
		return nil, nil
	}
	if err := checkScope(sc, op); err != nil {
		r.p.noteRefusal(sc, err)
		return nil, err
	}
	return r.p.cache.acquire(ctx, sc.ID, sc.Sweep)
}

// checkScope returns why sc does not name one tenant.
func checkScope(sc scope.Scope, op string) error {
	switch {
	case sc.Conflicted:
		return &Error{Op: op, Tenant: sc.Conflict, Err: ErrTenantMismatch,
			Detail: "the context is pinned to tenant " + quoteID(sc.Pin),
			Hint:   "start from a context that is not pinned, or keep to the pinned tenant"}
	case !sc.Named:
		return &Error{Op: op, Err: ErrNoTenant,
			Hint: "use db.WithContext(tenant.Ctx(ctx, id)), or tenant.Main(ctx) for the main database"}
	case sc.ID == "":
		return &Error{Op: op, Err: ErrInvalidTenant, Cause: ErrNoTenant, Detail: "the id is empty"}
	case sc.Invalid:
		return &Error{Op: op, Tenant: sc.ID, Err: ErrInvalidTenant,
			Hint: "see tenant.Validate for what an id may be"}
	}
	return nil
}

// pool returns the sql.DB of a leased entry.
func (e *entry) db() *sql.DB { return e.pool.(*pool).db }

func (r *router) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	e, err := r.lease(ctx, "exec")
	if err != nil {
		return nil, err
	}
	if e == nil {
		return r.p.main.ExecContext(ctx, query, args...)
	}
	defer r.p.cache.release(e)
	return e.db().ExecContext(ctx, query, args...)
}

func (r *router) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	e, err := r.lease(ctx, "query")
	if err != nil {
		return nil, err
	}
	if e == nil {
		return r.p.main.QueryContext(ctx, query, args...)
	}
	defer r.p.cache.release(e)
	return e.db().QueryContext(ctx, query, args...)
}

func (r *router) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	e, err := r.lease(ctx, "query row")
	if err != nil {
		return errRow(err)
	}
	if e == nil {
		return r.p.main.QueryRowContext(ctx, query, args...)
	}
	defer r.p.cache.release(e)
	return e.db().QueryRowContext(ctx, query, args...)
}

// PrepareContext refuses: a prepared statement belongs to one database, and
// whoever caches it by its SQL text, as gorm.PreparedStmtDB does, would run it
// for another tenant.
func (r *router) PrepareContext(context.Context, string) (*sql.Stmt, error) {
	return nil, errPrepare()
}

func errPrepare() error {
	return &Error{Op: "prepare", Err: ErrTenantMismatch,
		Detail: "a prepared statement outside a transaction has no tenant",
		Hint:   "run the statement plainly (the driver prepares and caches it per connection), or prepare it inside a transaction"}
}

// BeginTx is what gorm's Begin and Transaction call (gorm finisher_api.go,
// Begin). With an error it also returns a transaction, dead, whose Commit
// gives the error again: gorm goes on with what it gets.
func (r *router) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	sc := scope.From(ctx)
	e, err := r.lease(ctx, "begin")
	if err != nil {
		return deadTx(err), err
	}
	if e == nil {
		return beginMain(ctx, r.p, r.p.main, sc, opts)
	}
	defer r.p.cache.release(e)
	return beginTenant(ctx, e, sc, opts)
}

// GetDBConn is behind the root's db.DB(): the main database, which existing
// applications ping and size.
func (r *router) GetDBConn() (*sql.DB, error) {
	if r.p.mainDB == nil {
		return nil, gorm.ErrInvalidDB
	}
	return r.p.mainDB, nil
}

// errRow returns a row whose Scan and Err give err. Only database/sql can make
// one, so it is made by a sql.DB that fails to connect.
func errRow(err error) *sql.Row {
	db := sql.OpenDB(failing{err})
	defer func() { _ = db.Close() }()
	// Not the caller's ctx: if that has ended, sql.DB reports so instead.
	return db.QueryRowContext(context.Background(), "")
}

// failing is a driver.Connector that gives err.
type failing struct{ err error }

func (f failing) Connect(context.Context) (driver.Conn, error) { return nil, f.err }
func (f failing) Driver() driver.Driver                        { return nil }
