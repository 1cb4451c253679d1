package tenancygoose_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/glebarez/sqlite"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestMain(m *testing.M) {
	// What an imported package may have registered: a migration that nobody
	// here asked for, and one whose version is that of another.
	fails := func(context.Context, *sql.Tx) error { return errors.New("a migration of the global registry ran") }
	err := goose.SetGlobalMigrations(
		goose.NewGoMigration(1, &goose.GoFunc{RunTx: fails}, nil),
		goose.NewGoMigration(99, &goose.GoFunc{RunTx: fails}, nil))
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

// engine is what the tests run on.
type engine struct {
	dialect   goose.Dialect
	dialector func(*sql.Tx) gorm.Dialector
	connector func(t *testing.T) driver.Connector // to an empty database
}

// each runs a test on SQLite and on PostgreSQL.
func each(t *testing.T, test func(*testing.T, engine)) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, engine{
			dialect:   goose.DialectSQLite3,
			dialector: func(tx *sql.Tx) gorm.Dialector { return &sqlite.Dialector{Conn: tx} },
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
			dialect:   goose.DialectPostgres,
			dialector: func(tx *sql.Tx) gorm.Dialector { return postgres.New(postgres.Config{Conn: tx}) },
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

// sqlFiles makes files of the SQL that each applies; names and SQL alternate.
func sqlFiles(namesAndSQL ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(namesAndSQL); i += 2 {
		fsys[namesAndSQL[i]] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + namesAndSQL[i+1] + ";\n")}
	}
	return fsys
}

// three are migrations that build on each other.
func three() fstest.MapFS {
	return sqlFiles(
		"00001_users.sql", "CREATE TABLE users (id integer)",
		"00002_email.sql", "ALTER TABLE users ADD COLUMN email text",
		"00003_first.sql", "INSERT INTO users VALUES (1, 'a@example.com')",
	)
}

func newMigrator(t *testing.T, c tenancygoose.Config) migrate.Migrator {
	t.Helper()
	m, err := tenancygoose.New(c)
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
