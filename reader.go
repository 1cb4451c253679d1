package tenancy

import (
	"context"
	"database/sql"

	"gorm.io/gorm"
)

// reader is the pool of one statement that may run on a replica. route puts it
// in the place of prev, a router or a bound. It leads wherever prev does; what
// is no read goes to prev.
type reader struct {
	router *router
	bound  *bound // nil on the router
	guess  bool   // the statement is raw: whether it reads is guessed by its text
}

var (
	_ gorm.ConnPool         = (*reader)(nil)
	_ gorm.ConnPoolBeginner = (*reader)(nil)
	_ gorm.GetDBConnector   = (*reader)(nil)
)

// prev is the pool that the reader stands for.
func (rd *reader) prev() gorm.ConnPool {
	if rd.bound != nil {
		return rd.bound
	}
	return rd.router
}

// lease is that of prev, with the tenant's replicas if query may run on them.
func (rd *reader) lease(ctx context.Context, op, query string, guess bool) (*entry, *replicas, error) {
	if rd.bound != nil {
		var err error
		if ctx, err = rd.bound.ctx(ctx, op); err != nil {
			return nil, nil, err
		}
	}
	e, err := rd.router.lease(ctx, op)
	if err != nil || e == nil {
		return nil, nil, err
	}
	rs := e.pool.(*pool).replicas
	if rs != nil && guess && !readsOnly(query) {
		rs = nil
	}
	return e, rs, nil
}

// turn is one read's way through the replicas.
type turn struct {
	rs    *replicas
	on    *replica
	probe bool // whether on is back
	tried uint64
}

// next returns where to read now: a replica, or the primary when there is none
// left.
func (t *turn) next(e *entry) (*sql.DB, error) {
	if t.rs != nil {
		r, probe, err := t.rs.pick(t.tried)
		if err != nil {
			return nil, err
		}
		if r != nil {
			t.on, t.probe = r, probe
			return r.db, nil
		}
	}
	t.on = nil
	return e.db(), nil
}

// again reports whether the read has to go elsewhere, after err.
func (t *turn) again(ctx context.Context, err error) bool {
	if t.on == nil {
		return false
	}
	switch t.rs.judge(ctx, t.on, t.probe, err) {
	case verdictNext:
		t.tried |= 1 << t.on.at
		return true
	case verdictPrimary:
		t.rs = nil
		return true
	}
	return false
}

func (rd *reader) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	e, rs, err := rd.lease(ctx, "query", query, rd.guess)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return rd.router.p.main.QueryContext(ctx, query, args...)
	}
	defer rd.router.p.cache.release(e)
	for t := (turn{rs: rs}); ; {
		db, err := t.next(e)
		if err != nil {
			return nil, err
		}
		rows, err := db.QueryContext(ctx, query, args...)
		if !t.again(ctx, err) {
			return rows, err
		}
	}
}

func (rd *reader) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	e, rs, err := rd.lease(ctx, "query row", query, rd.guess)
	if err != nil {
		return errRow(err)
	}
	if e == nil {
		return rd.router.p.main.QueryRowContext(ctx, query, args...)
	}
	defer rd.router.p.cache.release(e)
	for t := (turn{rs: rs}); ; {
		db, err := t.next(e)
		if err != nil {
			return errRow(err)
		}
		row := db.QueryRowContext(ctx, query, args...)
		if !t.again(ctx, row.Err()) {
			return row
		}
	}
}

// ExecContext runs db.Exec of what only reads where dbresolver would. It guesses
// on any reader: a hook or another plugin may write by the pool that it finds in
// a read's statement.
func (rd *reader) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	e, rs, err := rd.lease(ctx, "exec", query, true)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return rd.router.p.main.ExecContext(ctx, query, args...)
	}
	defer rd.router.p.cache.release(e)
	for t := (turn{rs: rs}); ; {
		db, err := t.next(e)
		if err != nil {
			return nil, err
		}
		res, err := db.ExecContext(ctx, query, args...)
		if !t.again(ctx, err) {
			return res, err
		}
	}
}

func (rd *reader) PrepareContext(context.Context, string) (*sql.Stmt, error) {
	return nil, errPrepare()
}

// BeginTx begins a transaction of a hook that shares the statement.
func (rd *reader) BeginTx(ctx context.Context, opts *sql.TxOptions) (gorm.ConnPool, error) {
	return rd.prev().(gorm.ConnPoolBeginner).BeginTx(ctx, opts)
}

func (rd *reader) GetDBConn() (*sql.DB, error) {
	return rd.prev().(gorm.GetDBConnector).GetDBConn()
}
