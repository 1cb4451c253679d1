package main

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// The passwords of the roles, which must be nowhere.
const (
	adminPassword = "admin-hunter2"
	appPassword   = "app-hunter2"
)

// newPostgres is a place on a server of its own, whose roles have passwords.
func newPostgres(t *testing.T) (*place, *pgtest.Cluster) {
	t.Helper()
	pg := pgtest.Start(t, pgtest.HBA("host all tenancy_admin,app 127.0.0.1/32 scram-sha-256"))
	pg.Exec(t, "postgres", "CREATE ROLE tenancy_admin LOGIN CREATEDB PASSWORD '"+adminPassword+"' IN ROLE pg_signal_backend")
	pg.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD '"+appPassword+"'")
	pg.Exec(t, "postgres", "CREATE DATABASE main OWNER tenancy_admin")
	p := &place{dir: t.TempDir()}
	p.env = []string{
		"MAIN=" + as(t, pg, "main", "tenancy_admin", adminPassword),
		"APP=" + as(t, pg, "postgres", "app", appPassword),
		"ADMIN=" + as(t, pg, "postgres", "tenancy_admin", adminPassword),
	}
	p.write(t, "tenancy.yaml", `main: ${MAIN}
servers:
  db1:
    app: ${APP}
    admin: ${ADMIN}
    settings: {statement_timeout: 30s}
migrations: {main: migrations/main, tenants: migrations/tenants}
`)
	p.write(t, "migrations/main/00001_plans.sql", "-- +goose Up\nCREATE TABLE plans (id int PRIMARY KEY, name text);\n")
	p.write(t, "migrations/tenants/00001_orders.sql", "-- +goose Up\nCREATE TABLE orders (id int PRIMARY KEY, total numeric NOT NULL);\n")
	return p, pg
}

func as(t *testing.T, pg *pgtest.Cluster, database, role, password string) string {
	t.Helper()
	u, err := url.Parse(pg.DSN(database))
	require.NoError(t, err)
	u.User = url.UserPassword(role, password)
	return u.String()
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	p, pg := newPostgres(t)
	o := p.fails(t, 2, "", "doctor")
	require.Contains(t, o.out, "FAIL  catalog: ")
	p.with(t, "acme", "bravo")

	t.Run("migrate", func(t *testing.T) {
		p.addMigration(t, 2, "ALTER TABLE orders ADD COLUMN note text;")
		report := parse[migrate.Report](t, p.ok(t, "migrate", "--json"))
		require.Equal(t, 2, report.Done)
		p.ok(t, "status")
		require.Equal(t, "2 databases looked into, target version 2: 0 drifts\n", p.ok(t, "verify"))
	})
	t.Run("exec", func(t *testing.T) {
		require.Equal(t, "TENANT  AFFECTED\nacme    2\nbravo   2\n",
			p.ok(t, "exec", "INSERT INTO orders VALUES (1, 10.50, NULL), (2, 20, 'x')", "--write", "--force"))
		require.Equal(t, "TENANT  id  total  note\nacme    1   10.50  NULL\nacme    2   20     x\n", p.ok(t, "exec", "SELECT * FROM orders", "acme"))
		require.Equal(t, `{"tenant":"acme","row":{"total":10.50,"yes":true,"o":{"a":[1]},"nan":"NaN","now":"2026-01-02 03:04:05+00","n":null}}`+"\n",
			p.ok(t, "exec", `SELECT total, true AS yes, '{"a": [1]}'::jsonb AS o, 'NaN'::float8 AS nan,
				timestamptz '2026-01-02 03:04:05Z' AT TIME ZONE 'UTC' || '+00' AS now, NULL AS n FROM orders WHERE id = 1`, "acme", "--json"))

		for _, write := range []string{"DELETE FROM orders", "DROP TABLE orders", "WITH d AS (DELETE FROM orders RETURNING *) SELECT * FROM d",
			"CREATE TABLE t ()"} {
			o := p.fails(t, 2, "failed: acme: ", "exec", write, "acme")
			require.Contains(t, o.err, "read-only transaction", write)
		}
		for _, several := range []string{"COMMIT; DELETE FROM orders", "SELECT 1; SELECT 2", "SET TRANSACTION READ WRITE; DELETE FROM orders"} {
			p.fails(t, 2, "cannot insert multiple commands into a prepared statement", "exec", several, "acme")
		}
		// PostgreSQL 15 takes that for no write; it is rolled back.
		p.run(t, "exec", "SELECT lo_create(7)", "acme")
		require.Contains(t, p.ok(t, "exec", "SELECT count(*) FROM pg_largeobject_metadata", "acme"), "acme    0\n")
		// By itself it ends the transaction, and nothing follows.
		for _, single := range []string{"COMMIT", "ROLLBACK", "SET TRANSACTION READ WRITE"} {
			p.run(t, "exec", single, "acme")
		}
		require.Equal(t, "TENANT  count\nacme    2\nbravo   2\n", p.ok(t, "exec", "SELECT count(*) FROM orders"))
		p.fails(t, 2, "it took longer than --timeout 100ms", "exec", "SELECT pg_sleep(30)", "acme", "--timeout", "100ms")
		o := p.fails(t, 2, "failed: acme: ", "exec", "ALTER TABLE orders ADD COLUMN b int", "acme", "--write", "--force")
		require.Contains(t, o.err, "must be owner of table orders", "the application's rights, not the administrator's")
	})
	t.Run("doctor", func(t *testing.T) {
		o := p.run(t, "doctor")
		require.Zero(t, o.code, o)
		require.Contains(t, o.out, "ok    server db1, rights: tenancy_admin may create databases\n")
		require.Contains(t, o.out, "ok    server db1, version: PostgreSQL ")
		require.Contains(t, o.out, "ok    server db1, connections: ")
		require.Contains(t, o.out, "ok    server db1, pg_dump: ")
		require.Contains(t, o.out, "ok    application on db1, tenant ")
		require.NotContains(t, o.out, "FAIL")

		pg.Exec(t, "postgres", "ALTER ROLE tenancy_admin NOCREATEDB")
		pg.Exec(t, "postgres", "ALTER ROLE app NOLOGIN")
		o = p.fails(t, 2, "", "doctor")
		require.Contains(t, o.out, `FAIL  server db1, rights: tenancy_admin may not create databases; run: ALTER ROLE "tenancy_admin" CREATEDB`)
		require.Contains(t, o.out, "FAIL  application on db1, tenant ")
		pg.Exec(t, "postgres", "ALTER ROLE tenancy_admin CREATEDB")
		pg.Exec(t, "postgres", "ALTER ROLE app LOGIN")
	})
	t.Run("dump and restore", func(t *testing.T) {
		p.ok(t, "dump", "acme", "-o", "acme.dump")
		p.ok(t, "exec", "DELETE FROM orders", "acme", "--write", "--force")
		require.Equal(t, "acme is active on db1, at version 2\n", p.ok(t, "restore", "acme", "acme.dump", "--replace", "--force"))
		require.Equal(t, "TENANT  count\nacme    2\n", p.ok(t, "exec", "SELECT count(*) FROM orders", "acme"))
	})
	t.Run("wrong passwords", func(t *testing.T) {
		env := p.env
		defer func() { p.env = env }()
		for i := range env {
			p.env = append([]string{}, env...)
			p.env[i] = strings.Replace(env[i], "hunter2", "hunter3", 1)
			failed := false
			for _, args := range [][]string{{"list"}, {"doctor"}, {"create", "delta"}, {"remove", "delta", "--force"}, {"exec", "SELECT 1"}, {"migrate"}, {"dump", "acme", "-o", "x.dump"}} {
				o := p.run(t, args...)
				failed = failed || o.code != 0
				require.NotContains(t, o.out+o.err, "hunter", "%v", args)
			}
			require.True(t, failed, i)
		}
	})
	t.Run("a stopped server", func(t *testing.T) {
		p.addMigration(t, 3, "ALTER TABLE orders ADD COLUMN b int;")
		pg.Stop()
		o := p.fails(t, 2, "", "doctor")
		require.Contains(t, o.out, "FAIL  main database: ")
		require.Contains(t, o.out, "see that its server runs")
		require.NotContains(t, o.out+o.err, "hunter")
	})
}

// A statement that hangs in the server is cancelled there by a second Ctrl-C.
func TestPostgresCtrlC(t *testing.T) {
	t.Parallel()
	p, pg := newPostgres(t)
	p.with(t, "acme", "bravo")
	p.addMigration(t, 2, "SELECT pg_sleep(600);")
	term := p.terminal(t, "migrate", "--workers", "1")
	require.Eventually(t, func() bool { return sleeping(t, pg) == 1 }, patience, patience/1000)
	term.typed(t, ctrlC)
	term.expect(t, "stopping: ")
	require.Equal(t, 1, sleeping(t, pg), "the first one lets it go on")
	term.typed(t, ctrlC)
	code, seen := term.ends(t)
	require.Equal(t, 2, code, seen)
	require.Contains(t, seen, "stopped: 0 done, 2 left")
	require.Eventually(t, func() bool { return sleeping(t, pg) == 0 }, patience, patience/1000)
	p.addMigration(t, 2, "SELECT 1;")
	require.Contains(t, p.ok(t, "migrate"), "done: 2 done")
}

// sleeping counts the sessions that sleep.
func sleeping(t *testing.T, pg *pgtest.Cluster) (n int) {
	t.Helper()
	require.NoError(t, pg.Admin(t).QueryRow(t.Context(),
		"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'").Scan(&n))
	return n
}

// doctor knows a pooler by the numbers that it gives its clients.
func TestDoctorBehindPooler(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	bouncer := pgtest.StartBouncer(t, pg)
	p := &place{dir: t.TempDir()}
	main := pg.DSN(pg.CreateDatabase(t))
	p.write(t, "tenancy.yaml", fmt.Sprintf("main: %q\nservers: {db1: {app: %q, admin: %q}}\n", main, pg.DSN("postgres"), bouncer.DSN("postgres")))
	p.ok(t, "migrate")
	require.Contains(t, p.fails(t, 2, "", "doctor").out, "FAIL  server db1, administrator: its DSN leads through a connection pooler")
}
