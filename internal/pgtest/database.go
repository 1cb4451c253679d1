package pgtest

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// queryTimeout bounds what the helpers ask of a server.
const queryTimeout = 30 * time.Second

// CreateDatabase makes an empty database with a random name, returns the name,
// and drops it at the test's cleanup, whoever is still connected.
func (c *Cluster) CreateDatabase(tb TB) string {
	tb.Helper()
	name := "pgtest_" + strings.ToLower(rand.Text()[:16])
	ident := pgx.Identifier{name}.Sanitize()
	c.Exec(tb, c.adminDB(), "CREATE DATABASE "+ident)
	tb.Cleanup(func() {
		if c.usable() { // if not, all of the cluster is about to go
			c.Exec(tb, c.adminDB(), "DROP DATABASE IF EXISTS "+ident+" WITH (FORCE)")
		}
	})
	return name
}

// Conn returns a connection to the database dbname, closed at the test's
// cleanup. It goes around all that is under test, so it sees what is really in
// the database.
func (c *Cluster) Conn(tb TB, dbname string) *pgx.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DSN(dbname))
	if err != nil {
		tb.Fatalf("pgtest: connecting to %s: %v", dbname, err)
		return nil
	}
	tb.Cleanup(func() {
		// A second is enough for a server that answers.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Admin returns a superuser's connection to the maintenance database, closed
// at the test's cleanup.
func (c *Cluster) Admin(tb TB) *pgx.Conn {
	tb.Helper()
	return c.Conn(tb, c.adminDB())
}

// Exec runs one statement in the database dbname, on a connection of its own.
func (c *Cluster) Exec(tb TB, dbname, sql string, args ...any) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DSN(dbname))
	if err != nil {
		tb.Fatalf("pgtest: connecting to %s: %v", dbname, err)
		return
	}
	defer conn.Close(ctx) //nolint:errcheck // the statement's error counts
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		tb.Fatalf("pgtest: %s: %v", sql, err)
	}
}
