package tenancy

import (
	"context"
	"database/sql"
	"errors"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// WithTenant returns a scope that runs one statement for the tenant id:
//
//	db.Scopes(tenancy.WithTenant("acme")).Find(&orders)
//
// It overrides the context's tenant, unless that is pinned ([tenant.Pin]).
// GORM runs no scopes for Begin, Transaction and CreateInBatches of several
// batches: use [For] there.
func WithTenant(id string) func(*gorm.DB) *gorm.DB {
	return func(db *gorm.DB) *gorm.DB {
		// In place: a scope that returns db.WithContext(...) makes GORM lose
		// writes without an error.
		db.Statement.Context = tenant.Ctx(db.Statement.Context, id)
		return db
	}
}

// Main is a scope that runs one statement on the main database:
//
//	db.Scopes(tenancy.Main).Find(&plans)
func Main(db *gorm.DB) *gorm.DB {
	db.Statement.Context = tenant.Main(db.Statement.Context)
	return db
}

// ForStatement is [WithTenant] for the Scopes of gorm.G:
//
//	gorm.G[Order](db).Scopes(tenancy.ForStatement("acme")).Find(ctx)
func ForStatement(id string) func(*gorm.Statement) {
	return func(stmt *gorm.Statement) { stmt.Context = tenant.Ctx(stmt.Context, id) }
}

// For returns db bound to the tenant id: all that is derived from it works on
// that tenant, Begin and Transaction too. A context of another tenant is
// refused on it, one without a tenant means id, and [tenant.Main] still leads
// to the main database. In a transaction it must be the transaction's tenant.
// An error, a bad id for instance, is the returned db's.
func For(db *gorm.DB, id string) *gorm.DB {
	ctx := tenant.Ctx(db.Statement.Context, id)
	tx := db.Session(&gorm.Session{Context: ctx})
	p, ok := From(db)
	if !ok {
		_ = tx.AddError(errNotUsed("for"))
		return tx
	}
	if err := checkScope(scope.From(ctx), "for"); err != nil {
		_ = tx.AddError(err)
		return tx
	}
	if b, ok := p.base(db).(*bound); ok && b.id != id {
		_ = tx.AddError(b.mismatch(scope.From(ctx), "for"))
		return tx
	}
	to := newBound(p.router, id)
	tx.Config.ConnPool = to // Session has copied the Config
	tx.Config.PrepareStmt = false
	switch pool := plainPool(tx.Statement.ConnPool).(type) {
	case *Tx:
		if !pool.accepts(scope.From(ctx)) || pool.main {
			_ = tx.AddError(pool.mismatch("for", scope.From(ctx)))
		}
	case *sql.Tx, *sql.Conn: // the callback proves whose they are
	default:
		tx.Statement.ConnPool = to
	}
	return tx
}

// With runs fn for the tenant id, with a context that carries it and a db that
// is bound to it (see [For]), and returns fn's error. It begins no
// transaction.
func With(ctx context.Context, db *gorm.DB, id string, fn func(ctx context.Context, db *gorm.DB) error) error {
	ctx = tenant.Ctx(ctx, id)
	tx := For(db.WithContext(ctx), id)
	if tx.Error != nil {
		return tx.Error
	}
	return fn(ctx, tx)
}

// Conn runs fn with one connection of ctx's tenant, or of the main database
// for [tenant.Main]: for what needs one session (advisory locks, LISTEN, COPY)
// or the driver's own connection. The connection goes back to the pool when fn
// returns; fn must not keep it. In a transaction use [SQLTx].
func Conn(ctx context.Context, db *gorm.DB, fn func(*sql.Conn) error) (err error) {
	p, ok := From(db)
	if !ok {
		return errNotUsed("conn")
	}
	if tx, ok := plainPool(db.Statement.ConnPool).(*Tx); ok {
		return &Error{Op: "conn", Tenant: tx.id, Err: ErrTenantMismatch,
			Detail: "db is in a transaction, which has its own connection",
			Hint:   "use tenancy.SQLTx, or a db outside of the transaction"}
	}
	if b, ok := p.base(db).(*bound); ok {
		if ctx, err = b.ctx(ctx, "conn"); err != nil {
			return err
		}
	}
	e, err := p.router.lease(ctx, "conn")
	if err != nil {
		return err
	}
	from := p.mainDB
	if e != nil {
		// Held while fn runs, so that what fn does through GORM on this
		// connection can be proved to be the tenant's.
		defer p.cache.release(e)
		from = e.db()
	}
	if from == nil {
		return &Error{Op: "conn", Err: ErrUnavailable, Detail: "the main database's pool is no *sql.DB"}
	}
	conn, err := from.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() {
		// fn may have closed it, or given it up by driver.ErrBadConn in Raw.
		if closing := conn.Close(); err == nil && !errors.Is(closing, sql.ErrConnDone) {
			err = closing
		}
	}()
	return fn(conn)
}

// SQLTx returns the *sql.Tx of a transaction that GORM began, for libraries
// that take one (outboxes, job queues). Don't commit it or roll it back.
func SQLTx(tx *gorm.DB) (*sql.Tx, error) {
	if tx.Error != nil {
		return nil, tx.Error
	}
	switch pool := plainPool(tx.Statement.ConnPool).(type) {
	case *Tx:
		if err := pool.check(tx.Statement.Context, "tx"); err != nil {
			return nil, err
		}
		if inner, ok := pool.inner.(*sql.Tx); ok {
			return inner, nil
		}
	case *sql.Tx:
		return pool, nil
	}
	return nil, &Error{Op: "tx", Err: ErrTenantMismatch, Detail: "db is not in a transaction of database/sql",
		Hint: "call it on the tx that Begin or Transaction gives"}
}

func checkID(op, id string) error {
	return checkScope(scope.From(tenant.Ctx(context.Background(), id)), op)
}
