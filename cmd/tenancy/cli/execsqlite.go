package cli

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// sqliteStatement runs query on a connection of the tenant's. One that only
// reads must begin like one, since query_only does not keep SQLite from writing
// other files (ATTACH, VACUUM INTO); what it reads by can't write then
// (https://www.sqlite.org/pragma.html#pragma_query_only).
func sqliteStatement(query string, write bool, maxRows int) (func(context.Context, *gorm.DB) (*result, error), error) {
	words, err := oneStatement(query)
	if err != nil {
		return nil, err
	}
	if !write && !words.reads() {
		return nil, fmt.Errorf("%s is no statement that only reads; say --write if you mean it", words.first)
	}
	return func(ctx context.Context, db *gorm.DB) (res *result, err error) {
		err = tenancy.Conn(ctx, db, func(c *sql.Conn) (err error) {
			if !write {
				if _, err := c.ExecContext(ctx, "PRAGMA query_only = 1"); err != nil {
					return err
				}
				defer func() {
					if again := writable(context.WithoutCancel(ctx), c); err == nil {
						err = again
					}
				}()
			}
			res, err = askSQLite(ctx, c, query, maxRows)
			return err
		})
		return res, err
	}, nil
}

// writable makes a connection fit for the pool again, or has it closed.
func writable(ctx context.Context, c *sql.Conn) error {
	_, err := c.ExecContext(ctx, "PRAGMA query_only = 0")
	if err != nil {
		_ = c.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// askSQLite runs one statement. The driver ends one with the ctx only while it
// has no rows yet to be computed: a query goes on until its next row (go-sqlite
// sqlite.go, rows.Next).
func askSQLite(ctx context.Context, c *sql.Conn, query string, maxRows int) (_ *result, err error) {
	var before, after int64
	if err := c.QueryRowContext(ctx, "SELECT total_changes()").Scan(&before); err != nil {
		return nil, err
	}
	rows, err := c.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	res := &result{}
	if res.columns, err = rows.Columns(); err != nil {
		return nil, err
	}
	for rows.Next() {
		if maxRows > 0 && len(res.rows) == maxRows {
			res.more = true
			break
		}
		row := make([]any, len(res.columns))
		for i := range row {
			row[i] = new(any)
		}
		if err := rows.Scan(row...); err != nil {
			return nil, err
		}
		values := make([]*value, len(row))
		for i := range row {
			values[i] = sqliteValue(*row[i].(*any))
		}
		res.rows = append(res.rows, values)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	if err := c.QueryRowContext(ctx, "SELECT total_changes()").Scan(&after); err != nil {
		return nil, err
	}
	res.affected = after - before
	return res, nil
}

func sqliteValue(v any) *value {
	switch v := v.(type) {
	case nil:
		return nil
	case int64:
		return literal(strconv.FormatInt(v, 10))
	case float64:
		return literal(strconv.FormatFloat(v, 'g', -1, 64))
	case bool:
		return literal(strconv.FormatBool(v))
	case time.Time:
		return text(v.Format(time.RFC3339Nano))
	case []byte:
		return text("\\x" + hex.EncodeToString(v)) // as PostgreSQL prints it
	}
	return text(fmt.Sprint(v))
}
