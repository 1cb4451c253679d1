// Package driverwrap forwards one connection of any database/sql driver, for
// who wants to step in between. It changes nothing by itself: what the
// driver's own connection can do, [Conn] can, and what it can't,
// [driver.ErrSkip] makes database/sql do in its own way.
package driverwrap

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync/atomic"
)

// Conn forwards to the driver's connection that is embedded. It is itself made
// to be embedded, by value, in what overrides some of its methods.
//
// It implements all optional interfaces that database/sql looks for on a
// connection (database/sql: driverConn.resetSession, validateConnection,
// ctxDriverPrepare, ctxDriverExec, ctxDriverBegin, driverArgsConnLocked).
type Conn struct {
	driver.Conn
	// Hold, if set, is asked before a statement is closed, which database/sql
	// may do at any time. If it returns false the connection is not there any
	// more, and nothing is to be closed; else release is called after.
	Hold func() (release func(), ok bool)
	open atomic.Int32 // statements
}

// Statements is the number of prepared statements that are open.
func (c *Conn) Statements() int { return int(c.open.Load()) }

// Unwrap returns the driver's own connection.
func (c *Conn) Unwrap() driver.Conn { return c.Conn }

// Unwrap returns the driver's own connection under one that is, or embeds, a
// [Conn]; any other is returned as it is. For use in (*sql.Conn).Raw.
func Unwrap(conn any) any {
	if w, ok := conn.(interface{ Unwrap() driver.Conn }); ok {
		return w.Unwrap()
	}
	return conn
}

// Prepare prepares a statement that is counted until it is closed.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return c.counted(c.Conn.Prepare(query))
}

// PrepareContext is Prepare.
func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if p, ok := c.Conn.(driver.ConnPrepareContext); ok {
		return c.counted(p.PrepareContext(ctx, query))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.Prepare(query)
}

func (c *Conn) counted(s driver.Stmt, err error) (driver.Stmt, error) {
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &stmt{Stmt: s, conn: c}, nil
}

// ExecContext forwards.
func (c *Conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := c.Conn.(driver.ExecerContext); ok {
		return e.ExecContext(ctx, query, args)
	}
	return nil, driver.ErrSkip
}

// QueryContext forwards.
func (c *Conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := c.Conn.(driver.QueryerContext); ok {
		return q.QueryContext(ctx, query, args)
	}
	return nil, driver.ErrSkip
}

// BeginTx forwards.
func (c *Conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
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

// Ping forwards.
func (c *Conn) Ping(ctx context.Context) error {
	if p, ok := c.Conn.(driver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// ResetSession forwards.
func (c *Conn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

// IsValid forwards.
func (c *Conn) IsValid() bool {
	v, ok := c.Conn.(driver.Validator)
	return !ok || v.IsValid()
}

// Judges reports whether the driver's connection can tell by itself whether it
// can be used again.
func (c *Conn) Judges() bool {
	_, resets := c.Conn.(driver.SessionResetter)
	_, validates := c.Conn.(driver.Validator)
	return resets && validates
}

// CheckNamedValue forwards.
func (c *Conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}
