package sandbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/glebarez/go-sqlite"
	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/internal/sandbox"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// writing is a transaction that has written a user.
func writing(t *testing.T, ctx context.Context, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, tx, "INSERT INTO users (name) VALUES ('a')")
	return tx
}

func TestCancelledStatement(t *testing.T) {
	p, s, db := begun(t)
	pid := backend(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		p.awaitSleep(t, pid)
		cancel()
	}()
	_, err := db.ExecContext(ctx, "WITH u AS (INSERT INTO users (name) VALUES ('a')) SELECT pg_sleep(600)")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the statement: %v", err)
	}
	if got := backend(t, db); got != pid {
		t.Errorf("process %d after %d", got, pid)
	}
	if n := count(t, db, "users"); n != 0 {
		t.Errorf("%d users", n)
	}
	end(t, p, s)
}

func TestCancelledStatementInTransaction(t *testing.T) {
	p, s, db := begun(t)
	pid := backend(t, db)
	tx := writing(t, t.Context(), db)
	exec(t, tx, "SAVEPOINT mine")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		p.awaitSleep(t, pid)
		cancel()
	}()
	if err := tx.QueryRowContext(ctx, "SELECT pg_sleep(600)").Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("the statement: %v", err)
	}
	if _, err := tx.Exec("SELECT 1"); sqlerr.State(err) != "25P02" {
		t.Errorf("the next one: %v", err)
	}
	exec(t, tx, "ROLLBACK TO mine")
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if n := count(t, db, "users"); n != 1 {
		t.Errorf("%d users", n)
	}
	end(t, p, s)
}

// A cancelled transaction is rolled back by database/sql, on a goroutine of its
// own.
func TestCancelledTransaction(t *testing.T) {
	p, s, db := begun(t)
	ctx, cancel := context.WithCancel(t.Context())
	writing(t, ctx, db)
	cancel()
	if n := count(t, db, "users"); n != 0 { // waits for the rollback
		t.Errorf("%d users", n)
	}
	end(t, p, s)
}

// A transaction whose ctx has ended is database/sql's to roll back, which may
// take until after the test. It is not a leak.
func TestCancelledTransactionAtTheEnd(t *testing.T) {
	p, s, db := begun(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		writing(t, ctx, db)
		cancel()
		if err := s.End(t.Context()); err != nil {
			t.Fatal(err)
		}
		db = begin(t, s)
	}
	end(t, p, s)
}

// A limit for the transactions of the application is none for the sandbox's.
func TestIdleLimit(t *testing.T) {
	p := newPlace(t)
	c, err := tenancypg.Engine{}.Connector(p.pg.DSN(p.name) + "&idle_in_transaction_session_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	s := sandbox.New(c)
	defer s.Close()
	db := begin(t, s)
	pid := backend(t, db)
	p.await(t, "SELECT clock_timestamp() - state_change > '20ms' FROM pg_stat_activity WHERE pid = $1", pid)
	exec(t, db, "INSERT INTO users (name) VALUES ('a')")
	end(t, p, s)
}

// Requests to cancel that come when their statement has just ended must not
// meet the next one.
func TestCancelRaces(t *testing.T) {
	p, s, db := begun(t)
	pid := backend(t, db)
	hit := 0
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond)
		_, err := db.ExecContext(ctx, "INSERT INTO users (name) VALUES ($1)", fmt.Sprint(i))
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("statement %d: %v", i, err)
		}
		if err != nil {
			hit++
		}
		if n := count(t, db, "users"); n != i+1-hit {
			t.Fatalf("statement %d: %v, and %d users, want %d", i, err, n, i+1-hit)
		}
	}
	t.Logf("%d of 300 were cancelled", hit)
	if got := backend(t, db); got != pid {
		t.Errorf("process %d after %d", got, pid)
	}
	end(t, p, s)
}

func TestLostConnection(t *testing.T) {
	p, s, db := begun(t)
	pid := backend(t, db)
	tx := writing(t, t.Context(), db)
	p.pg.Exec(t, p.name, "SELECT pg_terminate_backend($1, 10000)", pid)
	_, err := tx.Exec("SELECT 2")
	wantErr(t, err, "connection was lost", "SELECT 2")
	wantErr(t, tx.Commit(), "connection was lost", "SELECT 2")
	_, err = db.Exec("SELECT 3")
	wantErr(t, err, "connection was lost", "SELECT 2")
	wantErr(t, s.End(t.Context()), "connection was lost", "SELECT 2")

	exec(t, begin(t, s), "INSERT INTO users (name) VALUES ('a')")
	end(t, p, s)
}

func TestLostBetweenTurns(t *testing.T) {
	p, s, db := begun(t)
	pid := backend(t, db)
	end(t, p, s)
	p.pg.Exec(t, p.name, "SELECT pg_terminate_backend($1, 10000)", pid)
	if got := backend(t, begin(t, s)); got == pid {
		t.Error("the process is the dead one")
	}
	end(t, p, s)
}

// A server that answers neither the statement nor the request to cancel it.
func TestFrozenServer(t *testing.T) {
	sandbox.SetCancelGrace(t, 100*time.Millisecond)
	pg := pgtest.Start(t)
	p := place{pg, pg.CreateDatabase(t)}
	pg.Exec(t, p.name, schema)
	s := newSandbox(t, p)
	db := begin(t, s)
	exec(t, db, "INSERT INTO users (name) VALUES ('a')")
	pid := backend(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		p.awaitSleep(t, pid)
		pg.Freeze()
		cancel()
	}()
	_, err := db.ExecContext(ctx, "SELECT pg_sleep(600)")
	wantErr(t, err, "connection was lost", "pg_sleep")
	wantErr(t, s.End(t.Context()), "connection was lost")
	pg.Thaw()
	exec(t, begin(t, s), "INSERT INTO users (name) VALUES ('b')")
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
}

// A COMMIT that is not seen in time ends the sandbox, and End says so.
func TestCommitBehindItsBack(t *testing.T) {
	for name, commit := range map[string]func(*testing.T, *sql.DB) error{
		"second statement": func(_ *testing.T, db *sql.DB) error {
			_, err := db.Exec("INSERT INTO users (name) VALUES ('a'); COMMIT")
			return err
		},
		"pgx": func(t *testing.T, db *sql.DB) error {
			conn, err := db.Conn(t.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			err = tenancypg.Raw(conn, func(c *pgx.Conn) error {
				tx, err := c.Begin(t.Context())
				if err != nil {
					return err
				}
				return tx.Commit(t.Context())
			})
			if err != nil {
				return err
			}
			_, err = conn.ExecContext(t.Context(), "SELECT 1")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, s, db := begun(t)
			const text = "ended the sandbox's own transaction"
			wantErr(t, commit(t, db), text)
			_, err := db.Exec("SELECT 1")
			wantErr(t, err, text)
			wantErr(t, s.End(t.Context()), text)
		})
	}
}

// inMemory opens SQLite's databases.
type inMemory struct{ sqliteDriver }

// sqliteDriver is an alias so that the field is not named Driver.
type sqliteDriver = sqlite.Driver

func (m *inMemory) Connect(context.Context) (driver.Conn, error) { return m.Open(":memory:") }
func (m *inMemory) Driver() driver.Driver                        { return m }

// Who is not pgx has no place here.
func TestOtherDriver(t *testing.T) {
	s := sandbox.New(new(inMemory))
	wantErr(t, s.Begin(t.Context()), "gives no access to pgx")
	if err := errors.Join(s.End(t.Context()), s.Close()); err != nil {
		t.Error(err)
	}
}
