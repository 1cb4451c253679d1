package tenancy

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// Tx is a transaction on one database, as a gorm.ConnPool. It knows its tenant
// and checks the ctx of every call. A refusal poisons it: Commit then rolls
// back and returns the refusal, so that an error nobody looked at can't leave
// half a piece of work.
//
// It is a pointer and has no BeginTx: gorm takes what has one for a pool, not
// a transaction (gorm finisher_api.go, Transaction, Commit).
type Tx struct {
	inner gorm.Tx // nil in a transaction that never began
	id    string  // the tenant; "" when main
	main  bool
	bound bool            // begun on a bound db: a ctx that names no tenant means this one
	begun scope.Scope     // what the ctx said at Begin
	ctx   context.Context // of Begin: when it ends, database/sql rolls back
	db    *sql.DB         // the main database's, for GetDBConn; nil for a tenant's

	mu     sync.Mutex
	poison error
}

var (
	_ gorm.Tx             = (*Tx)(nil)
	_ gorm.GetDBConnector = (*Tx)(nil)
)

func beginTenant(ctx context.Context, e *entry, sc scope.Scope, opts *sql.TxOptions) (*Tx, error) {
	inner, err := e.db().BeginTx(ctx, opts)
	if err != nil {
		return deadTx(err), err
	}
	return &Tx{inner: inner, id: e.id, begun: sc, ctx: ctx}, nil
}

func beginMain(ctx context.Context, p *Plugin, on gorm.ConnPool, sc scope.Scope, opts *sql.TxOptions) (*Tx, error) {
	tx := &Tx{main: true, begun: sc, ctx: ctx, db: p.mainDB}
	switch on := on.(type) {
	case gorm.TxBeginner:
		inner, err := on.BeginTx(ctx, opts)
		if err != nil {
			return deadTx(err), err
		}
		tx.inner = inner
		return tx, nil
	case gorm.ConnPoolBeginner:
		inner, err := on.BeginTx(ctx, opts)
		if err != nil {
			return deadTx(err), err
		}
		if inner, ok := inner.(gorm.Tx); ok {
			tx.inner = inner
			return tx, nil
		}
	}
	// Never gorm.ErrInvalidTransaction: gorm would go on without one.
	err := &Error{Op: "begin", Err: ErrUnavailable, Detail: "the main database's pool begins no transactions"}
	return deadTx(err), err
}

// deadTx is a transaction that could not begin for err.
func deadTx(err error) *Tx { return &Tx{poison: err} }

// where names the transaction's database.
func (t *Tx) where() string {
	if t.main {
		return "the main database"
	}
	return "tenant " + quoteID(t.id)
}

// accepts reports whether a call whose ctx says sc belongs into t: it says the
// same as at Begin, or names t's database.
func (t *Tx) accepts(sc scope.Scope) bool {
	if sc.Conflicted {
		return false
	}
	if sc == t.begun {
		return true
	}
	if t.main {
		return sc.Main
	}
	if t.bound && !sc.Named && !sc.Main {
		return true
	}
	id, ok := sc.Tenant()
	return ok && id == t.id
}

// mismatch is the refusal of a call whose ctx says sc.
func (t *Tx) mismatch(op string, sc scope.Scope) error {
	e := &Error{Op: op, Tenant: sc.ID, Err: ErrTenantMismatch,
		Detail: "the transaction belongs to " + t.where(),
		Hint:   "use the transaction's own context, or run this outside of it"}
	switch {
	case sc.Conflicted:
		return checkScope(sc, op)
	case sc.Main:
		e.Tenant, e.Detail = "", e.Detail+", the statement to the main database"
	case !sc.Named:
		e.Detail += ", and the context names no tenant"
	}
	return e
}

// refuse poisons t with err and returns it.
func (t *Tx) refuse(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.poison == nil {
		t.poison = err
	}
	return err
}

func (t *Tx) check(ctx context.Context, op string) error {
	if t.inner == nil {
		return t.poison // set once, before t was shared
	}
	if sc := scope.From(ctx); !t.accepts(sc) {
		return t.refuse(t.mismatch(op, sc))
	}
	return nil
}

// ExecContext runs query in the transaction. SAVEPOINT and ROLLBACK TO are
// never refused, and run even if ctx has ended: they can't leave the database,
// and several GORM dialects drop their error (SavePoint and RollbackTo of the
// postgres and sqlite drivers), after which a commit would keep what was to be
// rolled back. For the same reason their failure poisons.
func (t *Tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if t.inner != nil && isSavepoint(query) {
		res, err := t.inner.ExecContext(context.WithoutCancel(ctx), query, args...)
		if err != nil {
			_ = t.refuse(err)
		}
		return res, err
	}
	if err := t.check(ctx, "exec"); err != nil {
		return nil, err
	}
	return t.inner.ExecContext(ctx, query, args...)
}

// QueryContext runs query in the transaction.
func (t *Tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := t.check(ctx, "query"); err != nil {
		return nil, err
	}
	return t.inner.QueryContext(ctx, query, args...)
}

// QueryRowContext runs query in the transaction.
func (t *Tx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if err := t.check(ctx, "query row"); err != nil {
		return errRow(err)
	}
	return t.inner.QueryRowContext(ctx, query, args...)
}

// PrepareContext prepares query for this transaction.
func (t *Tx) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	if err := t.check(ctx, "prepare"); err != nil {
		return nil, err
	}
	return t.inner.PrepareContext(ctx, query)
}

// StmtContext returns stmt for this transaction; database/sql refuses one that
// was prepared on another database.
func (t *Tx) StmtContext(ctx context.Context, stmt *sql.Stmt) *sql.Stmt {
	return t.inner.StmtContext(ctx, stmt)
}

// Commit commits, or rolls back and returns the refusal that poisoned t.
func (t *Tx) Commit() error {
	t.mu.Lock()
	poison := t.poison
	t.mu.Unlock()
	if poison == nil {
		return t.inner.Commit()
	}
	if t.inner != nil {
		_ = t.inner.Rollback() // the refusal is what the caller has to know
	}
	return poison
}

// Rollback rolls back. It is no error that the ctx of Begin has ended, and
// with it the transaction: database/sql has rolled back already, or the driver
// can't and drops the connection. gorm would report it in place of the first
// error.
func (t *Tx) Rollback() error {
	if t.inner == nil {
		return nil
	}
	err := t.inner.Rollback()
	if ended := t.ctx.Err(); ended != nil && (errors.Is(err, sql.ErrTxDone) || errors.Is(err, ended)) {
		return nil
	}
	return err
}

// GetDBConn is behind tx.DB(). A tenant's sql.DB is never handed out.
func (t *Tx) GetDBConn() (*sql.DB, error) {
	if t.main && t.db != nil {
		return t.db, nil
	}
	return nil, errNoDB("transaction of " + t.where())
}

func errNoDB(what string) error {
	return &Error{Op: "db", Err: ErrTenantMismatch,
		Detail: "a " + what + " has no *sql.DB to hand out",
		Hint:   "use tenancy.Conn for one connection, tenancy.SQLTx for the *sql.Tx, or Plugin.OpenDB for a handle of your own"}
}

// isSavepoint reports whether query is nothing but one SAVEPOINT, ROLLBACK TO
// or RELEASE, as GORM's dialects write them.
func isSavepoint(query string) bool {
	const longest = len("ROLLBACK TO SAVEPOINT ") + 64
	if len(query) > longest || query == "" {
		return false
	}
	switch query[0] {
	case 'S', 's', 'R', 'r':
	default: // nearly every statement
		return false
	}
	name, ok := "", false
	for _, prefix := range [...]string{"ROLLBACK TO SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO ", "SAVEPOINT ", "RELEASE "} {
		if name, ok = cutPrefixFold(query, prefix); ok {
			break
		}
	}
	if !ok || name == "" {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '"', c == '`':
		default:
			return false
		}
	}
	return true
}
