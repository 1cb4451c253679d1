package tenancy

import (
	"database/sql"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// base is the route of db outside of transactions: bound, if For or With made
// db, else the router.
func (p *Plugin) base(db *gorm.DB) gorm.ConnPool {
	if b, ok := plainPool(db.Config.ConnPool).(*bound); ok && b.router == p.router {
		return b
	}
	return p.router
}

// target is the database that a statement means.
type target struct {
	id   string // the tenant's; "" for main
	main bool
}

func (t target) String() string {
	if t.main {
		return "the main database"
	}
	return "tenant " + quoteID(t.id)
}

// decide finds the database that the statement means, and makes the statement
// lead there. It may replace the statement's pool, never its ctx.
func (p *Plugin) decide(db *gorm.DB, v verb) (target, error) {
	stmt := db.Statement
	sc := scope.From(stmt.Context)
	pool := plainPool(stmt.ConnPool)
	_, hooked := stmt.ConnPool.(*held) // a hook's statement, or an association's, of a write that is held
	if tx, ok := pool.(*Tx); ok {
		if v == verbRaw && tx.inner != nil && isSavepoint(stmt.SQL.String()) {
			stmt.ConnPool = tx
			return target{id: tx.id, main: tx.main}, nil
		}
		if tx.inner == nil {
			return target{}, tx.poison
		}
	}
	if sc.Conflicted {
		return target{}, checkScope(sc, string(v))
	}
	if h, ok := stmt.ConnPool.(*held); ok {
		err := h.mismatch(sc, string(v))
		if savedAsAssociation(stmt) {
			err = h.moved(sc, string(v)) // saved along with it, after a hook; a hook's own may mean main
		}
		if err != nil {
			return target{}, err
		}
	}
	mainModel, err := p.models.owns(stmt, v, sc)
	if err != nil {
		return target{}, err
	}
	base := p.base(db)

	t := target{main: sc.Main || mainModel}
	if tx, ok := pool.(*Tx); ok {
		return p.decideTx(db, v, tx, sc, mainModel)
	}
	if !t.main {
		t.id, err = tenantOf(base, sc, v)
		if err != nil {
			return t, err
		}
	}
	if raw, ok := rawOwner(pool); ok {
		if err := p.proveRaw(db, v, raw); err != nil {
			return t, err
		}
		return t, nil
	}
	if t.main {
		if _, ok := stmt.ConnPool.(*detour); !ok && mainModel && !sc.Main { // not from a main model's own statement
			if done, err := p.models.saveReference(db, v); done || err != nil {
				return t, err
			}
		}
		return t, p.toMain(db, v, pool, base, sc)
	}
	switch pool := pool.(type) {
	case *router, *bound, *sql.DB:
	default:
		if !p.isMainPool(pool) {
			return t, p.unproved(db, v, pool)
		}
	}
	switch {
	case v.writes() && db.SkipDefaultTransaction:
		p.hold(stmt, base, t)
	case hooked: // stays: it reads what its write has written, and so do its preloads and hooks
	case p.opener.replicated.Load():
		stmt.ConnPool = mayRead(stmt, v, base)
	default:
		stmt.ConnPool = base // stays: it is the safe one
	}
	return t, nil
}

// tenantOf returns the tenant that sc names, for a statement outside of any
// transaction on base.
func tenantOf(base gorm.ConnPool, sc scope.Scope, v verb) (string, error) {
	if b, ok := base.(*bound); ok {
		if err := b.mismatch(sc, string(v)); err != nil {
			return "", err
		}
		return b.id, nil
	}
	if err := checkScope(sc, string(v)); err != nil {
		return "", err
	}
	return sc.ID, nil
}

// hold binds a write outside of a transaction to its tenant: hooks and other
// plugins' callbacks run between route and the write, they share the statement
// (gorm callbacks/callmethod.go), and one that sets its Context would move the
// write to another tenant, unchecked.
func (p *Plugin) hold(stmt *gorm.Statement, base gorm.ConnPool, t target) {
	if b, ok := base.(*bound); ok {
		stmt.ConnPool = b.hold
		return
	}
	stmt.ConnPool = p.cache.pin(t.id, p.router.hold)
}

func (r *router) hold(id string) *held {
	return &held{bound: bound{router: r, id: id}, prev: r}
}

// toMain makes a statement on no transaction run on the main database.
func (p *Plugin) toMain(db *gorm.DB, v verb, pool, base gorm.ConnPool, sc scope.Scope) error {
	on := p.main
	switch pool.(type) {
	case *router, *bound:
	default:
		if p.isMainPool(pool) {
			on = pool // dbresolver has chosen
		} else if _, ok := pool.(*sql.DB); !ok {
			return p.unproved(db, v, pool)
		}
	}
	if sc.Main && on == p.main {
		db.Statement.ConnPool = base // leads there by the ctx alone
		return nil
	}
	db.Statement.ConnPool = &detour{ConnPool: on, p: p, prev: base}
	return nil
}

// decideTx is decide inside one of our transactions.
func (p *Plugin) decideTx(db *gorm.DB, v verb, tx *Tx, sc scope.Scope, mainModel bool) (target, error) {
	stmt := db.Statement
	at := target{id: tx.id, main: tx.main}
	if sc.Main && stmt.SQL.Len() == 0 && p.models.lists(stmt.Schema) {
		mainModel = true // said twice: by the ctx, and by the model
	}
	if b, ok := p.base(db).(*bound); ok && !tx.main && b.id != tx.id {
		return at, tx.mismatch(string(v), sc)
	}
	if tx.main {
		if !tx.accepts(sc) || !(mainModel || sc.Main) {
			return at, tx.mismatch(string(v), sc)
		}
		stmt.ConnPool = tx
		return at, nil
	}
	if !mainModel {
		if !tx.accepts(sc) {
			return at, tx.mismatch(string(v), sc)
		}
		stmt.ConnPool = tx
		return at, nil
	}
	if id, ok := sc.Tenant(); ok && id != tx.id {
		return at, tx.mismatch(string(v), sc)
	}
	if done, err := p.models.saveReference(db, v); done || err != nil {
		return target{main: true}, err
	}
	_, locking := stmt.Clauses["FOR"]
	switch {
	case v.writes():
		return at, &Error{Op: string(v), Tenant: tx.id, Err: ErrMainInTenantTx,
			Detail: "table " + stmt.Table,
			Hint:   "write it before or after the transaction, or Omit the association that brings it"}
	case locking:
		return at, &Error{Op: string(v), Tenant: tx.id, Err: ErrMainInTenantTx,
			Detail: "a locking read of table " + stmt.Table + " would hold its lock in another transaction",
			Hint:   "read it without the lock, or lock it in a transaction of the main database"}
	}
	stmt.ConnPool = &txDetour{ConnPool: p.main, prev: tx}
	return target{main: true}, nil
}
