package sandbox_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/gorm-tenancy/tenancy/internal/sandbox"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// backend is the server process that serves db.
func backend(t *testing.T, db *sql.DB) (pid int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

// await waits until the server says so, by another connection.
func (p place) await(t *testing.T, query string, args ...any) {
	t.Helper()
	conn := p.pg.Conn(t, p.name)
	for {
		var ok bool
		if err := conn.QueryRow(t.Context(), query, args...).Scan(&ok); err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
	}
}

// awaitSleep waits until the process is in pg_sleep.
func (p place) awaitSleep(t *testing.T, pid int) {
	t.Helper()
	p.await(t, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')", pid)
}

func wantErr(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("there is no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}

func TestTurnsShareAConnection(t *testing.T) {
	p, s, db := begun(t)
	pid := backend(t, db)
	exec(t, db, "INSERT INTO users (name) VALUES ('a')")
	exec(t, db, "SET statement_timeout = '1h'")
	exec(t, db, "SELECT pg_advisory_lock(7)")
	exec(t, db, "CREATE TEMPORARY TABLE mine (x int)")
	end(t, p, s)

	next := begin(t, s)
	if got := backend(t, next); got != pid {
		t.Errorf("the second turn dialled: process %d after %d", got, pid)
	}
	exec(t, next, "INSERT INTO users (name) VALUES ('a')") // no duplicate
	var timeout string
	if err := next.QueryRow("SHOW statement_timeout").Scan(&timeout); err != nil || timeout != "0" {
		t.Errorf("statement_timeout %q, %v", timeout, err)
	}
	var free bool
	if err := p.pg.Conn(t, p.name).QueryRow(t.Context(), "SELECT pg_try_advisory_lock(7)").Scan(&free); err != nil || !free {
		t.Errorf("the advisory lock outlived its turn: %v", err)
	}
	if _, err := next.Exec("SELECT * FROM mine"); sqlerr.State(err) != "42P01" {
		t.Errorf("the temporary table outlived its turn: %v", err)
	}
	end(t, p, s)
}

func TestPreparedStatementsOfAnOldSchema(t *testing.T) {
	p, s, db := begun(t)
	exec(t, db, "ALTER TABLE users ADD COLUMN mail text")
	var all int
	stmt, err := db.Prepare("SELECT count(*) FROM (SELECT * FROM users) u")
	if err != nil {
		t.Fatal(err)
	}
	if err := stmt.QueryRow().Scan(&all); err != nil {
		t.Fatal(err)
	}
	columns(t, db, 4)
	end(t, p, s)
	columns(t, begin(t, s), 3)
	if err := stmt.Close(); err != nil {
		t.Error(err)
	}
	end(t, p, s)
}

// columns reads users with a statement that pgx prepares and remembers.
func columns(t *testing.T, db *sql.DB, want int) {
	t.Helper()
	rows, err := db.Query("SELECT * FROM users WHERE id > $1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if got, err := rows.Columns(); err != nil || len(got) != want {
		t.Errorf("columns %v, %v", got, err)
	}
}

func TestAfterTheEnd(t *testing.T) {
	p, s, db := begun(t)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stmt, err := conn.PrepareContext(t.Context(), "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	connector := s.Connector()
	end(t, p, s)

	const ended = "the test has ended"
	check := func(when string) {
		t.Helper()
		_, err := db.Exec("SELECT 1")
		wantErr(t, err, ended)
		_, err = conn.ExecContext(t.Context(), "SELECT 1")
		wantErr(t, err, ended)
		_, err = stmt.Exec()
		wantErr(t, err, ended)
		_, err = conn.BeginTx(t.Context(), nil)
		wantErr(t, err, ended)
		wantErr(t, db.Ping(), ended)
		_, err = connector.Connect(t.Context())
		wantErr(t, err, ended)
		if t.Failed() {
			t.Fatal(when)
		}
	}
	check("after End")
	next := begin(t, s)
	check("in the next turn")
	if n := count(t, next, "users"); n != 0 {
		t.Errorf("%d users", n)
	}
	if err := errors.Join(stmt.Close(), conn.Close()); err != nil {
		t.Error(err)
	}
	end(t, p, s)
}

func TestLeakedTransaction(t *testing.T) {
	p, s, db := begun(t)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	exec(t, tx, "INSERT INTO users (name) VALUES ('a')")
	err = s.End(t.Context())
	var leak *sandbox.LeakError
	if !errors.As(err, &leak) {
		t.Fatalf("End: %v", err)
	}
	wantErr(t, err, "transaction open", "sandbox_test.TestLeakedTransaction", "turn_test.go:")
	wantErr(t, tx.Commit(), "the test has ended")
	if n := p.rows(t); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	next := begin(t, s)
	exec(t, next, "INSERT INTO users (name) VALUES ('a')")
	end(t, p, s)
}

func TestEndCancelsWhatRuns(t *testing.T) {
	p, s, db := begun(t)
	pid := backend(t, db)
	failed := make(chan error)
	go func() {
		_, err := db.Exec("SELECT pg_sleep(600)")
		failed <- err
	}()
	p.awaitSleep(t, pid)
	waiting := make(chan error)
	go func() {
		_, err := db.Exec("SELECT 1")
		waiting <- err
	}()
	end(t, p, s)
	wantErr(t, <-failed, "the test has ended")
	wantErr(t, <-waiting, "the test has ended")
	if got := backend(t, begin(t, s)); got != pid {
		t.Errorf("process %d after %d", got, pid)
	}
	end(t, p, s)
}

func TestCloseInATurn(t *testing.T) {
	p, s, db := begun(t)
	exec(t, db, "INSERT INTO users (name) VALUES ('a')")
	pid := backend(t, db)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	_, err := db.Exec("SELECT 1")
	wantErr(t, err, "the test has ended")
	p.await(t, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid)
	if err := errors.Join(s.End(t.Context()), s.Close()); err != nil {
		t.Error(err)
	}
	if got := backend(t, begin(t, s)); got == pid {
		t.Error("Begin has not dialled")
	}
	end(t, p, s)
}

func TestBeginTwice(t *testing.T) {
	_, s, _ := begun(t)
	wantErr(t, s.Begin(t.Context()), "call End first")
}

func TestConnectorBeforeBegin(t *testing.T) {
	p := newPlace(t)
	s := newSandbox(t, p)
	c := s.Connector()
	if err := s.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := c.Connect(t.Context())
	wantErr(t, err, "call Begin, then Connector")
	end(t, p, s)
}

func TestBeginFails(t *testing.T) {
	p := newPlace(t)
	gone := p
	gone.name = "there_is_none"
	s := newSandbox(t, gone)
	if err := s.Begin(t.Context()); sqlerr.State(err) != "3D000" {
		t.Errorf("no such database: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newSandbox(t, p).Begin(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended ctx: %v", err)
	}
}
