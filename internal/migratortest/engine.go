// Package migratortest has what tests of a migrate.Migrator have in common:
// databases, and a suite that every Migrator of a list of migrations passes.
package migratortest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"path/filepath"
	"sync"
	"testing"

	_ "github.com/glebarez/go-sqlite" // the driver "sqlite"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// Engine is what a test runs on.
type Engine struct {
	Postgres bool // or SQLite
	// Connector makes an empty database.
	Connector func(t *testing.T) driver.Connector
}

// Each runs a test on SQLite and on PostgreSQL.
func Each(t *testing.T, test func(*testing.T, Engine)) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, Engine{Connector: func(t *testing.T) driver.Connector {
			db, err := sql.Open("sqlite", "")
			require.NoError(t, err)
			defer db.Close() //nolint:errcheck // it was not used
			return &sqliteConnector{db.Driver(), filepath.Join(t.TempDir(), "t.db") + "?_pragma=busy_timeout(5000)"}
		}})
	})
	t.Run("PostgreSQL", func(t *testing.T) { OnPostgres(t, test) })
}

// OnPostgres runs a test that says nothing on SQLite.
func OnPostgres(t *testing.T, test func(*testing.T, Engine)) {
	t.Parallel()
	pg := pgtest.Shared(t)
	test(t, Engine{Postgres: true, Connector: func(t *testing.T) driver.Connector {
		c, err := stdlib.GetDefaultDriver().(*stdlib.Driver).OpenConnector(pg.DSN(pg.CreateDatabase(t)))
		require.NoError(t, err)
		return c
	}})
}

type sqliteConnector struct {
	driver driver.Driver
	dsn    string
}

func (c *sqliteConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c *sqliteConnector) Driver() driver.Driver                        { return c.driver }

// Open opens an empty database.
func (e Engine) Open(t *testing.T) *sql.DB {
	t.Helper()
	return Pool(t, e.Connector(t))
}

// Pool opens a database with as many connections as a migrate.Exclusive has.
func Pool(t *testing.T, c driver.Connector) *sql.DB {
	t.Helper()
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(2)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// Spy notes the statements that a pool sends.
type Spy struct {
	driver.Connector
	mu   sync.Mutex
	sent []string
}

// Take returns what was sent since it was called last.
func (s *Spy) Take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent = nil
	return sent
}

func (s *Spy) note(query string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, query)
}

// Connect implements driver.Connector.
func (s *Spy) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := s.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &spyConn{&driverwrap.Conn{Conn: c}, s}, nil
}

type spyConn struct {
	*driverwrap.Conn
	spy *Spy
}

func (c *spyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.spy.note(query)
	return c.Conn.ExecContext(ctx, query, args)
}

func (c *spyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.spy.note(query)
	return c.Conn.QueryContext(ctx, query, args)
}

// Current is m's.
func Current(t *testing.T, m migrate.Migrator, db *sql.DB) int64 {
	t.Helper()
	v, err := m.Current(t.Context(), db)
	require.NoError(t, err)
	return v
}

// Count is the number that query returns.
func Count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(query).Scan(&n))
	return n
}

// Exec runs a statement around the Migrator.
func Exec(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	_, err := db.Exec(query)
	require.NoError(t, err)
}

// Versions are those of applied.
func Versions(applied []migrate.Applied) (v []int64) {
	for _, a := range applied {
		v = append(v, a.Version)
	}
	return v
}
