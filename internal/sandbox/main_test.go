package sandbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"

	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/internal/sandbox"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(pgtest.Main(m),
		// GORM's cache of prepared statements never stops its goroutine.
		goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"),
		goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func2"))
}

// user has a unique name. At the commit that brings it, its name is noted in
// audits.
type user struct {
	ID   int64
	Name string
	Age  int
}

// order's user is checked at the commit; its slot is unique, checked after each
// statement unless SET CONSTRAINTS says otherwise.
type order struct {
	ID     int64
	UserID *int64
	Title  string
	Slot   *int
}

const schema = `
	CREATE TABLE users (id bigserial PRIMARY KEY, name text NOT NULL UNIQUE, age int NOT NULL DEFAULT 0);
	CREATE TABLE orders (id bigserial PRIMARY KEY, title text,
		user_id bigint CONSTRAINT "Of user" REFERENCES users DEFERRABLE INITIALLY DEFERRED,
		slot int CONSTRAINT slots UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
	CREATE TABLE audits (id bigserial PRIMARY KEY, name text);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN INSERT INTO audits (name) VALUES (NEW.name); RETURN NULL; END';
	CREATE CONSTRAINT TRIGGER noted AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION note()`

// place is a database with the schema.
type place struct {
	pg   *pgtest.Cluster
	name string
}

func newPlace(t *testing.T) place {
	t.Helper()
	pg := pgtest.Shared(t)
	p := place{pg, pg.CreateDatabase(t)}
	pg.Exec(t, p.name, schema)
	return p
}

// connector is the one that an application's connections come from.
func (p place) connector(t *testing.T) driver.Connector {
	t.Helper()
	c, err := tenancypg.Engine{}.Connector(p.pg.DSN(p.name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rows counts what is in the database, around the sandbox.
func (p place) rows(t *testing.T) (n int) {
	t.Helper()
	const query = "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM orders) + (SELECT count(*) FROM audits)"
	if err := p.pg.Conn(t, p.name).QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// newSandbox returns one that is closed at the test's cleanup.
func newSandbox(t *testing.T, p place) *sandbox.Sandbox {
	t.Helper()
	s := sandbox.New(p.connector(t))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// begun is a sandbox whose turn has begun, and connections in it.
func begun(t *testing.T) (place, *sandbox.Sandbox, *sql.DB) {
	t.Helper()
	p := newPlace(t)
	s := newSandbox(t, p)
	return p, s, begin(t, s)
}

func begin(t *testing.T, s *sandbox.Sandbox) *sql.DB {
	t.Helper()
	if err := s.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(s.Connector())
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// end ends the turn; nothing may be left of it.
func end(t *testing.T, p place, s *sandbox.Sandbox) {
	t.Helper()
	if err := s.End(context.Background()); err != nil {
		t.Error(err)
	}
	if n := p.rows(t); n != 0 {
		t.Errorf("%d rows are left in the database", n)
	}
}

func openGORM(t *testing.T, pool gorm.ConnPool, cfg gorm.Config) *gorm.DB {
	t.Helper()
	cfg.Logger = logger.Discard
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool}), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func ptr[T any](v T) *T { return &v }

func exec(t *testing.T, db interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func count(t *testing.T, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, table string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
