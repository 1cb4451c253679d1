package tenancytest

import (
	"context"
	"database/sql/driver"
	"sync"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
)

// ledger notes which statements reach the databases of some tenants, at the
// driver: whatever led them there.
type ledger struct {
	mu      sync.Mutex
	entries []entry
}

// entry is a statement that ran in the database of a tenant.
type entry struct {
	tenant string
	query  string
	run    *run // whose ctx it carried; nil if none
}

// note is called before a statement runs.
func (l *ledger) note(ctx context.Context, tenant, query string) {
	r, _ := ctx.Value(runKey{}).(*run)
	l.mu.Lock()
	l.entries = append(l.entries, entry{tenant, query, r})
	l.mu.Unlock()
	if r != nil {
		r.step()
	}
}

// take returns what was noted since the last call.
func (l *ledger) take() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.entries
	l.entries = nil
	return all
}

// watch is a connector whose connections write to the ledger.
func (l *ledger) watch(inner driver.Connector, tenant string) driver.Connector {
	c := &watched{inner, l, tenant}
	if p, ok := inner.(tenancy.PermitConnector); ok {
		return &watchedPermit{c, p}
	}
	return c
}

type watched struct {
	driver.Connector
	ledger *ledger
	tenant string
}

func (c *watched) Connect(ctx context.Context) (driver.Conn, error) {
	return c.wrap(c.Connector.Connect(ctx))
}

func (c *watched) wrap(conn driver.Conn, err error) (driver.Conn, error) {
	if err != nil {
		return nil, err
	}
	return &watchedConn{driverwrap.Conn{Conn: conn}, c}, nil
}

// watchedPermit is for engines that say when a connection is truly gone.
type watchedPermit struct {
	*watched
	permits tenancy.PermitConnector
}

func (c *watchedPermit) ConnectPermit(ctx context.Context, permit tenancy.Permit) (driver.Conn, error) {
	return c.wrap(c.permits.ConnectPermit(ctx, permit))
}

type watchedConn struct {
	driverwrap.Conn
	from *watched
}

func (c *watchedConn) note(ctx context.Context, query string) {
	c.from.ledger.note(ctx, c.from.tenant, query)
}

func (c *watchedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.note(ctx, query)
	return c.Conn.ExecContext(ctx, query, args)
}

func (c *watchedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.note(ctx, query)
	return c.Conn.QueryContext(ctx, query, args)
}

func (c *watchedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.note(ctx, "BEGIN")
	return c.Conn.BeginTx(ctx, opts)
}

func (c *watchedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.Conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &watchedStmt{s, c, query}, nil
}

// watchedStmt forwards to a statement of driverwrap, which has the other
// methods.
type watchedStmt struct {
	driver.Stmt
	conn  *watchedConn
	query string
}

func (s *watchedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	s.conn.note(ctx, s.query)
	return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

func (s *watchedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.conn.note(ctx, s.query)
	return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
}

func (s *watchedStmt) CheckNamedValue(v *driver.NamedValue) error {
	return s.Stmt.(driver.NamedValueChecker).CheckNamedValue(v)
}
