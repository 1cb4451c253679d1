package driverwrap

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
)

// stmt forwards to a driver's statement, and tells its connection when it is
// closed.
//
// database/sql uses a statement's driver.ColumnConverter for arguments too,
// but calls it deprecated; a driver that has one and no NamedValueChecker gets
// the default conversions.
type stmt struct {
	driver.Stmt
	conn *Conn
	once sync.Once
}

func (s *stmt) Close() error {
	if s.conn.Hold != nil {
		release, ok := s.conn.Hold()
		if !ok {
			return nil
		}
		defer release()
	}
	defer s.once.Do(func() { s.conn.open.Add(-1) })
	return s.Stmt.Close()
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := s.Stmt.(driver.StmtExecContext); ok {
		return e.ExecContext(ctx, args)
	}
	values, err := positional(ctx, args)
	if err != nil {
		return nil, err
	}
	return s.Exec(values) //nolint:staticcheck // the only way on a driver without StmtExecContext
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := s.Stmt.(driver.StmtQueryContext); ok {
		return q.QueryContext(ctx, args)
	}
	values, err := positional(ctx, args)
	if err != nil {
		return nil, err
	}
	return s.Query(values) //nolint:staticcheck // the only way on a driver without StmtQueryContext
}

func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := s.Stmt.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	// database/sql asks the connection only where the statement does not
	// implement the interface (database/sql/convert.go, driverArgsConnLocked).
	return s.conn.CheckNamedValue(v)
}

// positional is what database/sql does for a statement without contexts
// (database/sql/ctxutil.go, ctxDriverStmtExec).
func positional(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	values := make([]driver.Value, len(args))
	for i, a := range args {
		if a.Name != "" {
			return nil, errors.New("the driver does not support named arguments")
		}
		values[i] = a.Value
	}
	return values, nil
}
