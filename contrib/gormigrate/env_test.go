package tenancygormigrate_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"path/filepath"
	"sync"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/go-gormigrate/gormigrate/v2"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	tenancygormigrate "github.com/gorm-tenancy/tenancy/contrib/gormigrate"
	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

// engine is what the tests run on.
type engine struct {
	postgres  bool
	dialector func(*sql.DB) gorm.Dialector
	connector func(t *testing.T) driver.Connector // to an empty database
}

// each runs a test on SQLite and on PostgreSQL.
func each(t *testing.T, test func(*testing.T, engine)) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, engine{
			dialector: func(db *sql.DB) gorm.Dialector { return &sqlite.Dialector{Conn: db} },
			connector: func(t *testing.T) driver.Connector {
				db, err := sql.Open("sqlite", "")
				require.NoError(t, err)
				defer db.Close()
				return &sqliteConnector{db.Driver(), filepath.Join(t.TempDir(), "t.db") + "?_pragma=busy_timeout(5000)"}
			},
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		pg := pgtest.Shared(t)
		test(t, engine{
			postgres:  true,
			dialector: func(db *sql.DB) gorm.Dialector { return postgres.New(postgres.Config{Conn: db}) },
			connector: func(t *testing.T) driver.Connector {
				c, err := stdlib.GetDefaultDriver().(*stdlib.Driver).OpenConnector(pg.DSN(pg.CreateDatabase(t)))
				require.NoError(t, err)
				return c
			},
		})
	})
}

type sqliteConnector struct {
	driver driver.Driver
	dsn    string
}

func (c *sqliteConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c *sqliteConnector) Driver() driver.Driver                        { return c.driver }

// open opens an empty database with as many connections as an Exclusive has.
func (e engine) open(t *testing.T) *sql.DB {
	t.Helper()
	return pool(t, e.connector(t))
}

func pool(t *testing.T, c driver.Connector) *sql.DB {
	t.Helper()
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(2)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// spy notes the statements that a pool sends.
type spy struct {
	driver.Connector
	mu   sync.Mutex
	sent []string
}

func (s *spy) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent = nil
	return sent
}

func (s *spy) note(query string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, query)
}

func (s *spy) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := s.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &spyConn{&driverwrap.Conn{Conn: c}, s}, nil
}

type spyConn struct {
	*driverwrap.Conn
	spy *spy
}

func (c *spyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.spy.note(query)
	return c.Conn.ExecContext(ctx, query, args)
}

func (c *spyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.spy.note(query)
	return c.Conn.QueryContext(ctx, query, args)
}

// execs is a migration of one statement.
func execs(id, statement string) *gormigrate.Migration {
	return &gormigrate.Migration{ID: id, Migrate: func(tx *gorm.DB) error { return tx.Exec(statement).Error }}
}

// three are migrations that build on each other.
func three() []*gormigrate.Migration {
	return []*gormigrate.Migration{
		execs("users", "CREATE TABLE users (id integer)"),
		execs("email", "ALTER TABLE users ADD COLUMN email text"),
		execs("first", "INSERT INTO users VALUES (1, 'a@example.com')"),
	}
}

func newMigrator(t *testing.T, c tenancygormigrate.Config) migrate.Migrator {
	t.Helper()
	m, err := tenancygormigrate.New(c)
	require.NoError(t, err)
	return m
}

func current(t *testing.T, m migrate.Migrator, db *sql.DB) int64 {
	t.Helper()
	v, err := m.Current(t.Context(), db)
	require.NoError(t, err)
	return v
}

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(query).Scan(&n))
	return n
}

func exec(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	_, err := db.Exec(query)
	require.NoError(t, err)
}

func versions(applied []migrate.Applied) (v []int64) {
	for _, a := range applied {
		v = append(v, a.Version)
	}
	return v
}

// config is one that New accepts.
func config() tenancygormigrate.Config {
	return tenancygormigrate.Config{
		Migrations: three(),
		Dialector:  func(db *sql.DB) gorm.Dialector { return &sqlite.Dialector{Conn: db} },
	}
}
