package tenancy

import (
	"context"
	"database/sql"
	"strings"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// bound is the router for one tenant only: the pool of a db that [For] or
// [With] handed out. A ctx of another tenant is refused, one that names none
// means the bound tenant.
type bound struct {
	router *router
	id     string
	hold   *held // for its writes outside of transactions; see Plugin.hold
	// The pools of statements that may run on a replica; see mayRead.
	reader, guesser reader
}

var (
	_ gorm.ConnPool         = (*bound)(nil)
	_ gorm.ConnPoolBeginner = (*bound)(nil)
	_ gorm.GetDBConnector   = (*bound)(nil)
)

func newBound(r *router, id string) *bound {
	b := &bound{router: r, id: id}
	b.reader = reader{router: r, bound: b}
	b.guesser = reader{router: r, bound: b, guess: true}
	b.hold = &held{bound: bound{router: r, id: id}, prev: b}
	return b
}

// mismatch returns why a ctx that says sc can't be used on b.
func (b *bound) mismatch(sc scope.Scope, op string) error {
	if sc.Conflicted {
		return checkScope(sc, op)
	}
	if sc.Main || !sc.Named || sc.ID == b.id {
		return nil
	}
	return &Error{Op: op, Tenant: sc.ID, Err: ErrTenantMismatch,
		Detail: "the db is bound to tenant " + quoteID(b.id),
		Hint:   "use the db that is not bound, or a context of the bound tenant"}
}

// ctx returns the ctx for the router: one that names a tenant.
func (b *bound) ctx(ctx context.Context, op string) (context.Context, error) {
	sc := scope.From(ctx)
	if err := b.mismatch(sc, op); err != nil {
		return nil, err
	}
	if sc.Named || sc.Main {
		return ctx, nil
	}
	return tenant.Ctx(ctx, b.id), nil
}

func (b *bound) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	ctx, err := b.ctx(ctx, "exec")
	if err != nil {
		return nil, err
	}
	return b.router.ExecContext(ctx, query, args...)
}

func (b *bound) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	ctx, err := b.ctx(ctx, "query")
	if err != nil {
		return nil, err
	}
	return b.router.QueryContext(ctx, query, args...)
}

func (b *bound) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	ctx, err := b.ctx(ctx, "query row")
	if err != nil {
		return errRow(err)
	}
	return b.router.QueryRowContext(ctx, query, args...)
}

func (b *bound) PrepareContext(context.Context, string) (*sql.Stmt, error) {
	return nil, errPrepare()
}

func (b *bound) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	sc := scope.From(ctx)
	if err := b.mismatch(sc, "begin"); err != nil {
		return deadTx(err), err
	}
	if sc.Main {
		return b.router.BeginTx(ctx, opts)
	}
	e, err := b.router.p.cache.acquire(ctx, b.id, sc.Sweep)
	if err != nil {
		return deadTx(err), err
	}
	defer b.router.p.cache.release(e)
	tx, err := beginTenant(ctx, e, sc, opts)
	tx.bound = true
	return tx, err
}

func (b *bound) GetDBConn() (*sql.DB, error) {
	return nil, errNoDB("db bound to tenant " + quoteID(b.id))
}

// held is bound for one write: see Plugin.hold.
type held struct {
	bound
	prev gorm.ConnPool
}

// moved returns why a write that is held can't go where sc means: only to its
// own tenant, and not to the main database either.
func (h *held) moved(sc scope.Scope, op string) error {
	if sc.Main && !sc.Conflicted {
		return &Error{Op: op, Tenant: h.id, Err: ErrTenantMismatch,
			Detail: "a hook or callback has turned the statement to the main database",
			Hint:   "change the context of a session, not that of the hook's own statement"}
	}
	return h.mismatch(sc, op)
}

// detour is the pool that the callback puts into one statement on a main model
// when the statement's ctx leads elsewhere. It remembers what it replaced, so
// that the callback can put that back: gorm reuses statements, and clones them
// for preloads, associations and hooks, which then find their own way from
// prev.
type detour struct {
	gorm.ConnPool // of the main database
	p             *Plugin
	prev          gorm.ConnPool
}

// BeginTx begins the default transaction of a write to a main model.
func (d *detour) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	return beginMain(ctx, d.p, d.ConnPool, scope.From(ctx), opts)
}

// PrepareContext refuses, as the router does.
func (d *detour) PrepareContext(context.Context, string) (*sql.Stmt, error) {
	return nil, errPrepare()
}

// GetDBConn returns the main database.
func (d *detour) GetDBConn() (*sql.DB, error) { return d.p.router.GetDBConn() }

// txDetour is a detour from inside a tenant's transaction, for a plain read of
// a main model. It is a gorm.TxCommitter, so that whatever looks at it
// (dbresolver's isTransaction, gorm's Transaction) still sees the transaction.
type txDetour struct {
	gorm.ConnPool // of the main database
	prev          *Tx
}

func (d *txDetour) Commit() error   { return d.prev.Commit() }
func (d *txDetour) Rollback() error { return d.prev.Rollback() }

// dryPool is the pool of a write in a dry run: it begins no transaction
// (gorm callbacks/transaction.go, BeginTransaction, takes that for granted)
// and is not asked for anything else.
type dryPool struct {
	gorm.ConnPool
	prev gorm.ConnPool
}

// cutPrefixFold is strings.CutPrefix, whatever the case of ASCII letters.
func cutPrefixFold(s, prefix string) (after string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}
