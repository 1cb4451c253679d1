package pgtest_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// ask connects to the maintenance database and queries it, within a second.
func ask(t *testing.T, pg *pgtest.Cluster, sql string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, pg.DSN("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.Background())
	var got string
	err = conn.QueryRow(ctx, sql).Scan(&got)
	return got, err
}

func mustAnswer(t *testing.T, pg *pgtest.Cluster) {
	t.Helper()
	if _, err := ask(t, pg, "SELECT 'yes'"); err != nil {
		t.Fatalf("%s does not answer: %v", pg.Addr(), err)
	}
}

func mustNotAnswer(t *testing.T, pg *pgtest.Cluster) {
	t.Helper()
	if _, err := ask(t, pg, "SELECT 'yes'"); err == nil {
		t.Fatalf("%s answers", pg.Addr())
	}
}

func TestKillOneOfTwo(t *testing.T) {
	t.Parallel()
	a, b := pgtest.Start(t), pgtest.Start(t)
	if a.Port() == b.Port() {
		t.Fatalf("both on port %d", a.Port())
	}
	mustAnswer(t, a)
	mustAnswer(t, b)
	conn := a.Admin(t) // its backend must die too

	a.Kill()

	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a backend survived the kill")
	}
	mustNotAnswer(t, a)
	mustAnswer(t, b)
	a.Kill() // of a dead one: nothing
}

func TestFreezeAndThaw(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	conn := pg.Admin(t)

	pg.Freeze()

	// An open session hangs, it isn't cut. Its query is answered after all.
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT 1")
		answer <- err
	}()
	mustNotAnswer(t, pg) // takes a second
	select {
	case err := <-answer:
		t.Fatalf("a backend answered while frozen: %v", err)
	default:
	}

	pg.Thaw()

	if err := <-answer; err != nil {
		t.Errorf("the query sent meanwhile: %v", err)
	}
	mustAnswer(t, pg)
}

func TestFrozenIsRemoved(t *testing.T) {
	t.Parallel()
	var port int
	t.Cleanup(func() { // the first one, so it runs after the cluster's
		if port == 0 {
			return // there was none
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port))
		if err == nil {
			_ = conn.Close(ctx)
			t.Error("the cluster outlived its test")
		}
	})
	pg := pgtest.Start(t)
	port = pg.Port()
	pg.CreateDatabase(t)
	pg.Freeze()
}

func TestRestartKeepsPortAndData(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	port := pg.Port()
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE kept (word text)")
	pg.Exec(t, db, "INSERT INTO kept VALUES ($1)", "milk")

	for _, down := range []func(){pg.Stop, pg.Kill, func() {}} {
		// A killed server may forget its last commits: synchronous_commit is
		// off.
		pg.Exec(t, db, "CHECKPOINT")
		down()
		pg.Restart()
		if pg.Port() != port {
			t.Fatalf("port %d became %d", port, pg.Port())
		}
		var word string
		if err := pg.Conn(t, db).QueryRow(t.Context(), "SELECT word FROM kept").Scan(&word); err != nil || word != "milk" {
			t.Fatalf("got %q, %v", word, err)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t, pgtest.MaxConns(7), pgtest.Setting("application_name", "it's"))
	for sql, want := range map[string]string{
		"SHOW max_connections":  "7",
		"SHOW application_name": "it's",
		"SHOW listen_addresses": "127.0.0.1",
		"SHOW server_encoding":  "UTF8",
	} {
		if got, err := ask(t, pg, sql); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", sql, got, err, want)
		}
	}

	var conns int
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		conn, err := pgx.Connect(ctx, pg.DSN("postgres"))
		cancel()
		if err != nil {
			break
		}
		defer conn.Close(context.Background())
		conns++
	}
	if conns != 7 {
		t.Errorf("%d connections were let in, want 7", conns)
	}
}

func TestHBA(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t, pgtest.HBA("host all clerk 127.0.0.1/32 scram-sha-256"))
	pg.Exec(t, "postgres", "CREATE ROLE clerk LOGIN PASSWORD 'right'")
	mustAnswer(t, pg) // the superuser is still trusted
	for password, ok := range map[string]bool{"right": true, "wrong": false, "": false} {
		cfg, err := pgx.ParseConfig(pg.DSN("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.User, cfg.Password = "clerk", password
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		if (err == nil) != ok {
			t.Errorf("password %q: %v", password, err)
		}
		if err == nil {
			_ = conn.Close(t.Context())
		}
	}
}

func TestSharedIsOne(t *testing.T) {
	t.Parallel()
	a, b := pgtest.Shared(t), pgtest.Shared(t)
	if a.Addr() != b.Addr() {
		t.Errorf("two servers: %s and %s", a.Addr(), b.Addr())
	}
	if os.Getenv(pgtest.EnvDSN) == "" {
		defer func() {
			if recover() == nil {
				t.Error("the shared server could be killed")
			}
		}()
		a.Kill()
	}
}

func TestCreateDatabaseIsDropped(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	var name string
	t.Run("creates", func(t *testing.T) {
		name = pg.CreateDatabase(t)
		if other := pg.CreateDatabase(t); other == name {
			t.Errorf("%s was made twice", name)
		}
		var got string
		if err := pg.Conn(t, name).QueryRow(t.Context(), "SELECT current_database()").Scan(&got); err != nil || got != name {
			t.Errorf("got %q, %v, want %q", got, err, name)
		}
		// Not closed: it must not keep the database from being dropped.
		conn, err := pgx.Connect(t.Context(), pg.DSN(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	})
	var n int
	if err := pg.Admin(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d databases are left, %v", n, err)
	}
}

func TestDSN(t *testing.T) {
	t.Setenv(pgtest.EnvDSN, "postgresql://adm:s%2Fecret@db.example/main?sslmode=require")
	pg := pgtest.Shared(t)
	if pg.Addr() != "db.example:5432" || pg.Port() != 5432 {
		t.Errorf("address %s, port %d", pg.Addr(), pg.Port())
	}
	u, err := url.Parse(pg.DSN("a b"))
	if err != nil {
		t.Fatal(err)
	}
	if u.Path != "/a b" || u.Host != "db.example" || u.RawQuery != "sslmode=require" {
		t.Errorf("got %s", u)
	}
	if pass, _ := u.User.Password(); pass != "s/ecret" {
		t.Errorf("password %q", pass)
	}
}
