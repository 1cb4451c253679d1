package sandbox

import (
	"context"
	"database/sql/driver"
	"errors"
)

// stmt is a prepared statement of a virtual connection.
type stmt struct {
	driver.Stmt // of the physical one, for NumInput
	conn        *conn
	query       string
}

func (c *conn) newStmt(inner driver.Stmt, query string) *stmt {
	s := &stmt{inner, c, query}
	c.turn.mu.Lock()
	defer c.turn.mu.Unlock()
	c.turn.stmts[s] = struct{}{}
	return s
}

// Close closes the statement when the physical connection is next used: it
// must not wait, and another connection may have it for long.
func (s *stmt) Close() error {
	t := s.conn.turn
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, open := t.stmts[s]; open {
		delete(t.stmts, s)
		t.closed = append(t.closed, s)
	}
	return nil
}

// ExecContext runs it.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (res driver.Result, err error) {
	err = s.conn.do(ctx, quote(s.query), func(ctx context.Context, _ innerConn) (err error) {
		e, ok := s.Stmt.(driver.StmtExecContext)
		if !ok {
			return errOldStmt
		}
		s.conn.turn.saw(s.query)
		res, err = e.ExecContext(ctx, args)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// QueryContext runs it, and reads all of its rows.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.query(ctx, s.query, func(ctx context.Context, _ innerConn) (driver.Rows, error) {
		q, ok := s.Stmt.(driver.StmtQueryContext)
		if !ok {
			return nil, errOldStmt
		}
		return q.QueryContext(ctx, args)
	})
}

// errOldStmt can't come from pgx's statements.
var errOldStmt = errors.New("sandbox: the driver's statements take no context; use pgx's")

// CheckNamedValue asks the statement, and if that has no opinion the connection,
// as database/sql would (database/sql/convert.go, driverArgsConnLocked).
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return s.conn.CheckNamedValue(v)
}
