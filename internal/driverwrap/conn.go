// Package driverwrap watches over one connection of any database/sql driver:
// it tells when the connection was closed, and can have it given up instead of
// going back to its pool. It changes nothing else: what the driver's own
// connection can do, the wrapped one can, and what it can't,
// [driver.ErrSkip] makes database/sql do in its own way.
package driverwrap

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
)

// Conn returns conn, watched. closed is called once, when conn has been
// closed. If yield is not nil it is asked each time the connection would go
// back to its pool; true gives the connection up.
//
// It implements all optional interfaces that database/sql looks for on a
// connection (database/sql: driverConn.resetSession, validateConnection,
// ctxDriverPrepare, ctxDriverExec, ctxDriverBegin, driverArgsConnLocked).
func Conn(conn driver.Conn, closed func(), yield func() bool) driver.Conn {
	return &wrapped{Conn: conn, closed: closed, yield: yield}
}

// Unwrap returns the driver's own connection under one that [Conn] returned;
// any other is returned as it is. For use in (*sql.Conn).Raw.
func Unwrap(conn any) any {
	if w, ok := conn.(*wrapped); ok {
		return w.Conn
	}
	return conn
}

type wrapped struct {
	driver.Conn
	once   sync.Once
	closed func()
	yield  func() bool
}

func (c *wrapped) Close() error {
	defer c.once.Do(c.closed)
	return c.Conn.Close()
}

func (c *wrapped) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if p, ok := c.Conn.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.Prepare(query)
}

func (c *wrapped) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := c.Conn.(driver.ExecerContext); ok {
		return e.ExecContext(ctx, query, args)
	}
	return nil, driver.ErrSkip
}

func (c *wrapped) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := c.Conn.(driver.QueryerContext); ok {
		return q.QueryContext(ctx, query, args)
	}
	return nil, driver.ErrSkip
}

func (c *wrapped) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if b, ok := c.Conn.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, opts)
	}
	if opts != (driver.TxOptions{}) {
		return nil, errors.New("the driver supports neither isolation levels nor read-only transactions")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.Begin() //nolint:staticcheck // the only way on a driver without ConnBeginTx
}

func (c *wrapped) Ping(ctx context.Context) error {
	if p, ok := c.Conn.(driver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

func (c *wrapped) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *wrapped) IsValid() bool {
	if v, ok := c.Conn.(driver.Validator); ok && !v.IsValid() {
		return false
	}
	return c.yield == nil || !c.yield()
}

func (c *wrapped) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}
