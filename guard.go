package tenancy

import (
	"context"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// route returns the callback that decides where a statement runs: it proves
// that what the statement holds leads to the database that its ctx and model
// mean, or puts what does, or refuses. For a tenant's statement on the router
// it changes nothing and allocates nothing.
func (p *Plugin) route(v verb) func(*gorm.DB) {
	return func(db *gorm.DB) {
		if db.Error != nil { // gorm runs nothing any more, and "%v; %w" would hide the first error
			failSubquery(db, v)
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
			err = pool.moved(sc, string(v))
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

// restore returns the callback that takes back what route put into the
// statement. A reader stays: it leads wherever what it stands for does, and a
// hook of the read may have gone on in a goroutine, whose db looks at the
// statement's pool (gorm gorm.go, getInstance).
func (p *Plugin) restore(v verb) func(*gorm.DB) {
	return func(db *gorm.DB) {
		switch pool := db.Statement.ConnPool.(type) {
		case *router, *Tx, *bound, *reader:
		case *detour:
			db.Statement.ConnPool = pool.prev
		case *held:
			if v.writes() { // else the statement came with it, from a hook
				db.Statement.ConnPool = pool.prev
			}
		case *txDetour:
			db.Statement.ConnPool = pool.prev
		case *dryPool:
			db.Statement.ConnPool = pool.prev
		}
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

// failSubquery gives a sub-query that has an error a text that no database
// runs. GORM builds sub-queries as dry runs with this logger, drops their error
// and goes on with "()" (gorm statement.go, AddVar): in NOT IN that is true for
// every row. For Raw and Exec it does so before any other callback could look.
func failSubquery(db *gorm.DB, v verb) {
	if v == verbQuery && db.DryRun && db.Logger == logger.Discard && db.Statement.SQL.Len() == 0 {
		db.Statement.SQL.WriteString("SELECT * FROM " + db.Statement.Quote("a sub-query of this statement has an error"))
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
		case *reader:
			pool = outer.prev()
		case *txDetour:
			return outer.prev
		case *dryPool:
			pool = outer.prev
		default:
			return pool
		}
	}
}
