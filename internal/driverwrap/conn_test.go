package driverwrap

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// bare is a connection that can do the least that a driver must.
type bare struct{ closed int }

func (c *bare) Prepare(string) (driver.Stmt, error) { return bareStmt{}, nil }
func (c *bare) Close() error                        { c.closed++; return nil }
func (c *bare) Begin() (driver.Tx, error)           { return tx{}, nil }

type bareStmt struct{}

func (bareStmt) Close() error                               { return nil }
func (bareStmt) NumInput() int                              { return -1 }
func (bareStmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(7), nil }
func (bareStmt) Query([]driver.Value) (driver.Rows, error)  { return rows{}, nil }

type rows struct{}

func (rows) Columns() []string         { return []string{"x"} }
func (rows) Close() error              { return nil }
func (rows) Next([]driver.Value) error { return io.EOF }

type tx struct{}

func (tx) Commit() error   { return nil }
func (tx) Rollback() error { return nil }

// connector gives wrapped connections.
type connector struct{ inner driver.Conn }

func (c *connector) Connect(context.Context) (driver.Conn, error) { return &Conn{Conn: c.inner}, nil }
func (c *connector) Driver() driver.Driver                        { return nil }

func TestABareDriverWorksAsItDoesUnwrapped(t *testing.T) {
	inner := &bare{}
	db := sql.OpenDB(&connector{inner: inner})
	res, err := db.ExecContext(t.Context(), "x", 1, "two")
	require.NoError(t, err)
	n, _ := res.RowsAffected()
	require.EqualValues(t, 7, n)
	r, err := db.QueryContext(t.Context(), "x")
	require.NoError(t, err)
	require.False(t, r.Next())
	require.NoError(t, r.Close())
	require.NoError(t, db.PingContext(t.Context()))
	begun, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, begun.Commit())
	_, err = db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	require.ErrorContains(t, err, "read-only", "not silently without")
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	require.NoError(t, conn.Raw(func(c any) error {
		require.Same(t, inner, Unwrap(c))
		require.Equal(t, "else", Unwrap("else"))
		return nil
	}))
	require.NoError(t, conn.Close())
	require.Zero(t, inner.closed)
	require.NoError(t, db.Close())
	require.Equal(t, 1, inner.closed)
}

func TestStatementsAreCounted(t *testing.T) {
	c := &Conn{Conn: &bare{}}
	one, err := c.Prepare("x")
	require.NoError(t, err)
	two, err := c.PrepareContext(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, 2, c.Statements())
	require.NoError(t, one.Close())
	require.NoError(t, one.Close())
	require.Equal(t, 1, c.Statements())
	res, err := two.(driver.StmtExecContext).ExecContext(t.Context(), []driver.NamedValue{{Ordinal: 1, Value: 1}})
	require.NoError(t, err)
	n, _ := res.RowsAffected()
	require.EqualValues(t, 7, n)
	_, err = two.(driver.StmtQueryContext).QueryContext(t.Context(), nil)
	require.NoError(t, err)
	_, err = two.(driver.StmtQueryContext).QueryContext(t.Context(), []driver.NamedValue{{Name: "a"}})
	require.ErrorContains(t, err, "named")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = two.(driver.StmtExecContext).ExecContext(ended, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, two.Close())
	require.Zero(t, c.Statements())
}

// rich can do more: what it does is used.
type rich struct {
	bare
	invalid bool
}

var errRich = errors.New("rich")

func (c *rich) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return nil, errRich
}
func (c *rich) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return nil, errRich
}
func (c *rich) PrepareContext(context.Context, string) (driver.Stmt, error)  { return nil, errRich }
func (c *rich) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) { return nil, errRich }
func (c *rich) Ping(context.Context) error                                   { return errRich }
func (c *rich) ResetSession(context.Context) error                           { return errRich }
func (c *rich) IsValid() bool                                                { return !c.invalid }
func (c *rich) CheckNamedValue(*driver.NamedValue) error                     { return errRich }

func TestWhatTheDriverCanDoIsUsed(t *testing.T) {
	ctx := t.Context()
	inner := &rich{}
	c := &Conn{Conn: inner}
	_, err := c.ExecContext(ctx, "", nil)
	require.Same(t, errRich, err)
	_, err = c.QueryContext(ctx, "", nil)
	require.Same(t, errRich, err)
	_, err = c.PrepareContext(ctx, "")
	require.Same(t, errRich, err)
	_, err = c.BeginTx(ctx, driver.TxOptions{})
	require.Same(t, errRich, err)
	require.Same(t, errRich, c.Ping(ctx))
	require.Same(t, errRich, c.ResetSession(ctx))
	require.Same(t, errRich, c.CheckNamedValue(nil))
	require.True(t, c.IsValid())
	inner.invalid = true
	require.False(t, c.IsValid())
}
