package sandbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

func TestRaw(t *testing.T) {
	p := newPlace(t)
	s := newSandbox(t, p)
	s.Wait = 20 * time.Millisecond
	db := begin(t, s)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = tenancypg.Raw(conn, func(c *pgx.Conn) error {
		_, err := c.CopyFrom(t.Context(), pgx.Identifier{"users"}, []string{"name"}, pgx.CopyFromRows([][]any{{"a"}, {"b"}}))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nobody knows whether pgx's connection is still in use.
	_, err = db.Exec("SELECT 1")
	wantErr(t, err, "a raw connection", "raw_test.go:")
	if n := count(t, conn, "users"); n != 2 {
		t.Errorf("%d users", n)
	}
	if n := count(t, db, "audits"); n != 2 { // at the commit
		t.Errorf("%d audits", n)
	}

	// A batch that fails is undone, and the next statement goes on.
	err = tenancypg.Raw(conn, func(c *pgx.Conn) error {
		var b pgx.Batch
		b.Queue("INSERT INTO users (name) VALUES ('c')")
		b.Queue("INSERT INTO users (name) VALUES ('a')")
		return c.SendBatch(t.Context(), &b).Close()
	})
	if sqlerr.State(err) != "23505" {
		t.Errorf("the batch: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if n := count(t, db, "users"); n != 2 {
		t.Errorf("%d users", n)
	}
	end(t, p, s)
}

func TestRawInATransaction(t *testing.T) {
	p, s, db := begun(t)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := conn.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	insert := func(c *pgx.Conn) error {
		_, err := c.Exec(t.Context(), "INSERT INTO users (name) VALUES ('a')")
		return err
	}
	if err := tenancypg.Raw(conn, insert); err != nil {
		t.Fatal(err)
	}
	exec(t, tx, "INSERT INTO users (name) VALUES ('b')")
	if err := tenancypg.Raw(conn, insert); sqlerr.State(err) != "23505" {
		t.Errorf("the duplicate: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if n := count(t, db, "users"); n != 0 {
		t.Errorf("%d users", n)
	}
	end(t, p, s)
}

// What nobody could be told of, everybody hears.
func TestRawViolatesADeferredConstraint(t *testing.T) {
	_, s, db := begun(t)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = tenancypg.Raw(conn, func(c *pgx.Conn) error {
		_, err := c.Exec(t.Context(), "INSERT INTO orders (user_id) VALUES (99)")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	_, err = db.Exec("SELECT 1")
	wantErr(t, err, "raw connection", "Of user")
	wantErr(t, s.End(t.Context()), "raw connection", "Of user")
}

// While another connection is in a transaction, there is no raw one.
func TestRawMustWait(t *testing.T) {
	p := newPlace(t)
	s := newSandbox(t, p)
	s.Wait = 20 * time.Millisecond
	db := begin(t, s)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, tenancypg.Raw(conn, func(*pgx.Conn) error { return nil }), "gives no access to pgx")
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if err := tenancypg.Raw(conn, func(*pgx.Conn) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	end(t, p, s)
}

// A raw connection that was not given back keeps End waiting, but not for ever.
func TestRawNotGivenBack(t *testing.T) {
	p, s, db := begun(t)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := tenancypg.Raw(conn, func(*pgx.Conn) error { return nil }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	wantErr(t, s.End(ctx), "still in use", "a raw connection", "raw_test.go:")
	exec(t, begin(t, s), "INSERT INTO users (name) VALUES ('a')")
	end(t, p, s)
}

func TestPreparedStatements(t *testing.T) {
	p, s, db := begun(t)
	insert, err := db.Prepare("INSERT INTO users (name) VALUES ($1) RETURNING id")
	if err != nil {
		t.Fatal(err)
	}
	var id int
	for _, name := range []string{"a", "b"} {
		if err := insert.QueryRow(name).Scan(&id); err != nil {
			t.Error(err)
		}
	}
	if err := insert.QueryRow("a").Scan(&id); sqlerr.State(err) != "23505" {
		t.Errorf("the duplicate: %v", err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	in := tx.Stmt(insert)
	if _, err := in.Exec("c"); err != nil {
		t.Error(err)
	}
	if err := insert.Close(); err != nil { // waits for nobody
		t.Error(err)
	}
	exec(t, tx, "INSERT INTO users (name) VALUES ($1)", "d")
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if _, err := db.Prepare("SELEC 1"); sqlerr.State(err) != "42601" {
		t.Errorf("bad syntax: %v", err)
	}
	if n := count(t, db, "users"); n != 4 {
		t.Errorf("%d users", n)
	}
	var open int
	if err := db.QueryRow("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT%RETURNING id'").Scan(&open); err != nil || open != 0 {
		t.Errorf("%d statements are still prepared at the server: %v", open, err)
	}
	end(t, p, s)
}

// Statements that nobody has closed go with their turn.
func TestUnclosedStatements(t *testing.T) {
	p, s, db := begun(t)
	if _, err := db.Prepare("SELECT 'never closed'"); err != nil {
		t.Fatal(err)
	}
	end(t, p, s)
	db = begin(t, s)
	var open int
	if err := db.QueryRow("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%never closed%' AND statement NOT LIKE '%count%'").Scan(&open); err != nil || open != 0 {
		t.Errorf("%d statements are still prepared at the server: %v", open, err)
	}
	end(t, p, s)
}
