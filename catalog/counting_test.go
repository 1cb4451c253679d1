package catalog_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync/atomic"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
)

// counted makes connections that count their statements.
type counted struct {
	driver driver.Driver
	dsn    string
	n      *atomic.Int64
}

func (c counted) Driver() driver.Driver { return c.driver }

func (c counted) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: driverwrap.Conn{Conn: conn}, n: c.n}, nil
}

type countedConn struct {
	driverwrap.Conn
	n *atomic.Int64
}

func (c *countedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.n.Add(1)
	return c.Conn.QueryContext(ctx, query, args)
}

func (c *countedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.n.Add(1)
	return c.Conn.ExecContext(ctx, query, args)
}

// onCounted returns a catalog whose statements in the main database are
// counted.
func (pr *process) onCounted(t *testing.T, cfg catalog.Config) (c *catalog.Catalog, asked func() int) {
	t.Helper()
	name := "sqlite"
	if pr.Engine == "postgres" {
		name = "pgx"
	}
	plain, err := sql.Open(name, pr.Main)
	require.NoError(t, err)
	n := new(atomic.Int64)
	main := sql.OpenDB(counted{plain.Driver(), pr.Main, n})
	t.Cleanup(func() { require.NoError(t, main.Close()) })
	require.NoError(t, plain.Close())
	dialector := gorm.Dialector(&sqlite.Dialector{Conn: main})
	if pr.Engine == "postgres" {
		dialector = postgres.New(postgres.Config{Conn: main})
	}
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	cfg.Servers = pr.servers
	c, err = catalog.New(db, cfg)
	require.NoError(t, err)
	n.Store(0)
	return c, func() int { return int(n.Swap(0)) }
}
