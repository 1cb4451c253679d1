package bench

import (
	"context"
	"database/sql/driver"
	"io"
)

// null is a database that answers every statement at once and with nothing: no
// rows to a query, one row affected to anything else. What a benchmark then
// measures is the way to the driver and back.
type null struct {
	// name makes one null differ from another: pointers to empty structs may
	// be equal, and two tenants on one database are refused.
	name string
}

func (n *null) Connect(context.Context) (driver.Conn, error) { return &nullConn{}, nil }
func (n *null) Driver() driver.Driver                        { return nullDriver{} }

type nullDriver struct{}

func (nullDriver) Open(string) (driver.Conn, error) { return &nullConn{}, nil }

type nullConn struct{}

func (*nullConn) Prepare(string) (driver.Stmt, error) { return nullStmt{}, nil }
func (*nullConn) Close() error                        { return nil }
func (*nullConn) Begin() (driver.Tx, error)           { return nullTx{}, nil }
func (*nullConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return nullTx{}, nil
}
func (*nullConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return nullResult{}, nil
}
func (*nullConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return nullRows{}, nil
}

type nullStmt struct{}

func (nullStmt) Close() error                               { return nil }
func (nullStmt) NumInput() int                              { return -1 }
func (nullStmt) Exec([]driver.Value) (driver.Result, error) { return nullResult{}, nil }
func (nullStmt) Query([]driver.Value) (driver.Rows, error)  { return nullRows{}, nil }

type nullTx struct{}

func (nullTx) Commit() error   { return nil }
func (nullTx) Rollback() error { return nil }

type nullResult struct{}

func (nullResult) LastInsertId() (int64, error) { return 1, nil }
func (nullResult) RowsAffected() (int64, error) { return 1, nil }

type nullRows struct{}

func (nullRows) Columns() []string         { return columns }
func (nullRows) Close() error              { return nil }
func (nullRows) Next([]driver.Value) error { return io.EOF }

var columns = []string{"id", "title"}
