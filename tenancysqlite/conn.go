package tenancysqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	sqlite "github.com/glebarez/go-sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gorm-tenancy/tenancy"
)

// driverConn is what the driver's connection is (go-sqlite's sqlite.go and
// sqlite_go18.go).
type driverConn interface {
	driver.Conn
	driver.Pinger
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
}

// conn is a driver's connection that can say whose database it leads to.
type conn struct{ driverConn }

var _ tenancy.IdentityConn = conn{}

// Unwrap returns the driver's own connection.
func (c conn) Unwrap() driver.Conn { return c.driverConn }

// Identity implements [tenancy.IdentityConn]: to a query alone, a table that is
// not there is an error like any other (SQLITE_ERROR).
func (c conn) Identity(ctx context.Context) (i tenancy.Identity, err error) {
	row, err := c.row(ctx, "SELECT uid, generation FROM "+tenancy.MetaTable+" LIMIT 1", 2)
	if hasCode(err, sqlite3.SQLITE_ERROR) {
		there, thereErr := c.row(ctx, "SELECT 1 FROM sqlite_schema WHERE name = '"+tenancy.MetaTable+"'", 1)
		if thereErr == nil && there == nil {
			return i, nil
		}
	}
	if err != nil || row == nil {
		return i, err
	}
	uid, isText := row[0].(string)
	generation, isInt := row[1].(int64)
	if !isText || !isInt {
		return i, fmt.Errorf("uid is a %T and generation a %T", row[0], row[1])
	}
	return tenancy.Identity{UID: uid, Generation: generation}, nil
}

// row returns the first row of query, or nil.
func (c conn) row(ctx context.Context, query string, columns int) (_ []driver.Value, err error) {
	rows, err := c.QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, columns)
	switch err := rows.Next(row); {
	case err == io.EOF:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return row, nil
}

// hasCode reports whether err has SQLite's primary result code.
func hasCode(err error, code int) bool {
	var sqliteErr *sqlite.Error
	return errors.As(err, &sqliteErr) && sqliteErr.Code()&0xff == code
}
