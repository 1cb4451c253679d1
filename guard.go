package tenancy

import (
	"context"
	"database/sql"
	"reflect"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// route returns the callback that decides where a statement runs: it proves
// that what the statement holds leads to the database that its ctx and model
// mean, or puts what does, or refuses. For a tenant's statement on the router
// it changes nothing and allocates nothing.
func (p *Plugin) route(v verb) func(*gorm.DB) {
	return func(db *gorm.DB) {
		if db.Error != nil { // gorm runs nothing any more, and "%v; %w" would hide the first error
			carry(db, v)
			return
		}
		if db.DryRun {
			// Never an error: sub-queries are dry runs, and gorm drops their
			// errors and goes on with an empty condition (gorm statement.go, AddVar).
			if v.writes() {
				dry(db, p)
			}
			return
		}
		t, err := p.decide(db, v)
		if err == nil {
			err = p.inspect(db, v, t)
		}
		if err != nil {
			p.refuse(db, v, err)
			return
		}
		if v.writes() {
			p.begun(db)
		}
	}
}

// begunTx is what begun remembers of a statement. It is forgotten when the
// transaction's ctx ends, since a hook that panics leaves both behind.
type begunTx struct {
	tx     *Tx
	forget func() bool
}

// begun is the callback that remembers the transaction of a statement whose
// hooks could replace it: a hook shares the statement, and gorm knows its
// default transaction by the statement's ConnPool alone.
func (p *Plugin) begun(db *gorm.DB) {
	stmt := db.Statement
	tx, ok := stmt.ConnPool.(*Tx)
	if !ok || tx.inner == nil || db.Error != nil || !hasHooks(stmt) {
		return
	}
	if _, ok := p.txs.Load(stmt); ok {
		return
	}
	p.txs.Store(stmt, &begunTx{tx, context.AfterFunc(tx.ctx, func() { p.txs.Delete(stmt) })})
}

// putBack puts a replaced transaction into the statement again, so that gorm
// ends it and its connection comes back, and refuses the statement.
func (p *Plugin) putBack(db *gorm.DB, v verb) {
	stmt := db.Statement
	noted, ok := p.txs.Load(stmt)
	if !ok {
		return
	}
	tx := noted.(*begunTx).tx
	if stmt.ConnPool == gorm.ConnPool(tx) {
		return
	}
	err := p.unproved(db, v, stmt.ConnPool)
	stmt.ConnPool = tx
	if db.Error != nil { // of the hook, say; it is the one to be seen
		_ = tx.refuse(err)
		return
	}
	p.refuse(db, v, err)
}

// hasHooks reports whether hooks of the model run with the statement.
func hasHooks(stmt *gorm.Statement) bool {
	s := stmt.Schema
	return s != nil && !stmt.SkipHooks && (s.BeforeSave || s.BeforeCreate || s.BeforeUpdate || s.BeforeDelete ||
		s.AfterSave || s.AfterCreate || s.AfterUpdate || s.AfterDelete)
}

// check returns the callback that proves, after hooks and other plugins have
// run, that the statement still leads to its database.
func (p *Plugin) check(v verb) func(*gorm.DB) {
	return func(db *gorm.DB) {
		p.putBack(db, v)
		if db.Error != nil || db.DryRun {
			return
		}
		stmt := db.Statement
		sc := scope.From(stmt.Context)
		var err error
		switch pool := stmt.ConnPool.(type) {
		case *router:
			err = checkScope(sc, string(v))
			if sc.Main && !sc.Conflicted {
				err = nil
			}
		case *bound:
			err = pool.mismatch(sc, string(v))
		case *held:
			err = pool.mismatch(sc, string(v))
		case *Tx:
			if !pool.accepts(sc) {
				err = pool.mismatch(string(v), sc)
			}
		case *detour:
		default:
			if raw, ok := rawOwner(pool); ok {
				err = p.proveRaw(db, v, raw)
			} else {
				err = p.unproved(db, v, pool)
			}
		}
		if err != nil {
			p.refuse(db, v, err)
		}
	}
}

// restore is the callback that takes back what route put into the statement.
func (p *Plugin) restore(db *gorm.DB) {
	switch pool := db.Statement.ConnPool.(type) {
	case *router, *Tx, *bound:
	case *detour:
		db.Statement.ConnPool = pool.prev
	case *held:
		db.Statement.ConnPool = pool.prev
	case *txDetour:
		db.Statement.ConnPool = pool.prev
	case *dryPool:
		db.Statement.ConnPool = pool.prev
	}
}

// end returns the callback that lets gorm end the transaction that it began.
func (p *Plugin) end(v verb) func(*gorm.DB) {
	return func(db *gorm.DB) {
		p.putBack(db, v)
		if noted, ok := p.txs.LoadAndDelete(db.Statement); ok {
			noted.(*begunTx).forget()
		}
	}
}

// refuse gives err to the caller in GORM's own way, and poisons the
// transaction that the statement is in.
func (p *Plugin) refuse(db *gorm.DB, v verb, err error) {
	if tx, ok := plainPool(db.Statement.ConnPool).(*Tx); ok {
		_ = tx.refuse(err)
	}
	p.noteRefusal(scope.From(db.Statement.Context), err)
	_ = db.AddError(err)
	carry(db, v)
}

func (p *Plugin) noteRefusal(sc scope.Scope, err error) {
	p.refused.Add(1)
	p.observe(Event{Kind: EventRefused, Tenant: sc.ID, Err: err})
}

// carry makes db.Row() return a row that carries db.Error: it returns nil when
// a callback failed (gorm finisher_api.go, Row), and Scan then panics.
func carry(db *gorm.DB, v verb) {
	if v != verbRow {
		return
	}
	if isRows, _ := db.Get("rows"); isRows != true {
		db.Statement.Dest = errRow(db.Error)
	}
}

func dry(db *gorm.DB, p *Plugin) {
	if _, ok := db.Statement.ConnPool.(gorm.TxCommitter); !ok {
		db.Statement.ConnPool = &dryPool{ConnPool: p.router, prev: db.Statement.ConnPool}
	}
}

// plainPool returns what pool leads to: without a cache of prepared
// statements, without a detour.
func plainPool(pool gorm.ConnPool) gorm.ConnPool {
	for {
		switch outer := pool.(type) {
		case *gorm.PreparedStmtDB:
			pool = outer.ConnPool
		case *gorm.PreparedStmtTX:
			pool = outer.Tx
		case *detour:
			pool = outer.prev
		case *held:
			pool = outer.prev
		case *txDetour:
			return outer.prev
		case *dryPool:
			pool = outer.prev
		default:
			return pool
		}
	}
}

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
	// A hook's statement, or an association's, of a write that is held.
	if h, ok := stmt.ConnPool.(*held); ok {
		if err := h.mismatch(sc, string(v)); err != nil {
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
		if stmt.ConnPool != base {
			stmt.ConnPool = base // stays: it is the safe one
		}
		if db.SkipDefaultTransaction && v.writes() {
			p.hold(stmt, base, t)
		}
		return t, nil
	default:
		if p.isMainPool(pool) {
			stmt.ConnPool = base
			return t, nil
		}
		return t, p.unproved(db, v, pool)
	}
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
	if base == gorm.ConnPool(p.router) { // else it is bound already
		stmt.ConnPool = p.cache.pin(t.id, p.router.hold)
	}
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

// proveRaw reports whether a *sql.Conn or *sql.Tx that our router did not make
// belongs to the database that the statement means.
func (p *Plugin) proveRaw(db *gorm.DB, v verb, raw *sql.DB) error {
	sc := scope.From(db.Statement.Context)
	mainModel, err := p.models.owns(db.Statement, v, sc)
	if err != nil {
		return err
	}
	if sc.Main || mainModel {
		if raw == p.mainDB || p.isMainPool(raw) {
			return nil
		}
	} else {
		id, err := tenantOf(p.base(db), sc, v)
		if err != nil {
			return err
		}
		owner, ok := p.cache.owner(func(tp tenantPool) bool { return tp.(*pool).db == raw })
		if ok && owner == id {
			return nil
		}
	}
	return &Error{Op: string(v), Tenant: sc.ID, Err: ErrTenantMismatch,
		Detail: "the statement holds a connection or transaction that is not proved to be of the database it means",
		Hint:   "use tenancy.Conn instead of Connection, derive sessions after db.Use, and begin transactions on a db with the tenant's context and without dbresolver's clauses"}
}

func (p *Plugin) unproved(db *gorm.DB, v verb, pool gorm.ConnPool) error {
	return &Error{Op: string(v), Tenant: scope.From(db.Statement.Context).ID, Err: ErrTenantMismatch,
		Detail: "the statement holds a pool of type " + typeName(pool) + ", whose database is not known",
		Hint:   "let no other plugin or hook set the statement's ConnPool"}
}

func typeName(v any) string {
	if v == nil {
		return "nil"
	}
	return reflect.TypeOf(v).String()
}

// rawOwner returns the sql.DB that a *sql.Tx or *sql.Conn came from, as
// gorm's own DB does for a Tx (gorm gorm.go, DB): neither type tells.
func rawOwner(pool gorm.ConnPool) (*sql.DB, bool) {
	var v reflect.Value
	switch pool := pool.(type) {
	case *sql.Tx:
		v = reflect.ValueOf(pool)
	case *sql.Conn:
		v = reflect.ValueOf(pool)
	default:
		return nil, false
	}
	if v.IsNil() {
		return nil, true
	}
	field := v.Elem().FieldByName("db")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*sql.DB]() {
		return nil, true // owned by nobody we know
	}
	return (*sql.DB)(field.UnsafePointer()), true
}
