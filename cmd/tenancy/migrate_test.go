package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestMigrate(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	report := parse[migrate.Report](t, p.ok(t, "migrate", "--json"))
	require.Equal(t, migrate.StatusDone, report.Status)
	require.EqualValues(t, 1, report.Main.To)
	for _, id := range []string{"acme", "bravo", "delta"} {
		p.ok(t, "create", id)
	}
	p.addMigration(t, 2, "ALTER TABLE orders ADD COLUMN note text;")
	p.write(t, "migrations/main/00002_price.sql", "-- +goose Up\nALTER TABLE plans ADD COLUMN price integer;\n")

	o := p.run(t, "migrate", "--dry-run")
	require.Equal(t, 2, o.code, o)
	require.Contains(t, o.out, "pending acme on s1: version 1\n")
	require.Equal(t, "main: version 1 to 2, 1 migration applied\n", p.ok(t, "migrate", "--main-only"))
	p.fails(t, 2, "run `tenancy migrate`", "status")

	o = p.run(t, "migrate", "acme")
	require.Zero(t, o.code, o)
	require.Equal(t, "migrating 1 tenant\n1 of 1, 0 failed\n", o.err, "no terminal, no bar")
	report = parse[migrate.Report](t, p.ok(t, "migrate", "--tenants-only", "--canary", "bravo", "--workers", "2", "--per-server", "1", "--json"))
	require.Nil(t, report.Main)
	require.Equal(t, 2, report.Done)
	require.Equal(t, 1, report.UpToDate)
	p.ok(t, "status")
	require.Contains(t, p.ok(t, "migrate"), "done: 0 done, 3 up to date before")

	p.fails(t, 1, "tenant not found", "migrate", "nobody")
	p.fails(t, 1, "canary: get: tenant nobody: tenant not found", "migrate", "--canary", "nobody")
	p.fails(t, 1, "no tenant is selected", "migrate", "--label", "plan=none")
	p.fails(t, 1, "--main-only selects no tenants", "migrate", "--main-only", "acme")
	p.fails(t, 1, "main-only tenants-only", "migrate", "--main-only", "--tenants-only")
	p.fails(t, 1, "LockTimeout must be shorter", "migrate", "--lock-timeout", "1h")
}

func TestMigratePartly(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo")
	p.ok(t, "exec", "CREATE TABLE taken (x)", "bravo", "--write", "--force")
	p.addMigration(t, 2, "CREATE TABLE taken (id integer);")
	o := p.fails(t, 2, "mend what is wrong, and try those again: tenancy retry", "migrate")
	require.Contains(t, o.err, "failed: bravo on s1: ")
	require.Contains(t, o.out, "partial: 1 done, 1 failed, to version 2")
	require.Contains(t, o.out, "table taken already exists")
	o = p.fails(t, 2, "then `tenancy retry`", "status")
	st := parse[catalog.Status](t, p.run(t, "status", "--json").out)
	require.Equal(t, 1, st.Attention)
	require.Contains(t, o.out, "1 behind, 1 of them need attention")
	require.Contains(t, p.ok(t, "list"), "its migration failed")
	require.Contains(t, p.ok(t, "show", "bravo"), "run `tenancy retry bravo`")

	o = p.run(t, "migrate", "--json")
	require.Equal(t, 2, o.code, "it stays as it is: %s", o)
	require.Equal(t, 1, parse[migrate.Report](t, o.out).Skipped)
	p.ok(t, "exec", "DROP TABLE taken", "bravo", "--write", "--force")
	require.Contains(t, p.ok(t, "retry", "bravo"), "done: 1 done")
	p.ok(t, "status")
}

func TestMigrateHalted(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo", "delta", "echo")
	p.ok(t, "exec", "CREATE TABLE taken (x)", "acme", "bravo", "delta", "--write", "--force")
	p.addMigration(t, 2, "CREATE TABLE taken (id integer);")

	// A canary.
	o := p.fails(t, 3, "halted; ship migrations that are mended, or go on with these: tenancy retry", "migrate", "--canary", "acme")
	require.Contains(t, o.err, "halted: canary acme: ")
	require.Contains(t, o.out, "halted: 0 done, 1 failed, 3 left")
	p.fails(t, 3, "these migrations are halted: canary acme: ", "status")
	p.fails(t, 3, "halted", "migrate")
	require.Contains(t, p.fails(t, 2, "", "doctor").out, "FAIL  migrations: they are halted: canary acme: ")

	// The breaker.
	o = p.fails(t, 3, "tenants failed in the same way", "retry", "--breaker", "2", "--workers", "1", "--json")
	require.Equal(t, migrate.StatusHalted, parse[migrate.Report](t, o.out).Status)

	// The main database.
	p.write(t, "migrations/main/00002_bad.sql", "-- +goose Up\nCREATE TABLE plans (id integer);\n")
	o = p.fails(t, 3, "the main database failed, so no tenant was tried", "migrate", "--retry")
	require.Contains(t, o.out, "table plans already exists")
	p.fails(t, 3, "the main database failed", "migrate", "--main-only")

	require.Equal(t, "no migration run is going on that is not halted already\n", p.ok(t, "halt", "a reason"))
	require.JSONEq(t, `{"halted": 0}`, p.ok(t, "halt", "--json"))
}

// A run is halted from beside it.
func TestHalt(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo", "delta")
	p.addMigration(t, 2, "ALTER TABLE orders ADD COLUMN note text;")
	unblock := p.block(t)
	term := p.terminal(t, "migrate", "--workers", "1")
	p.atWork(t)
	require.Equal(t, "1 run is halted; go on by `tenancy retry`\n", p.ok(t, "halt", "too", "slow"))
	unblock()
	code, seen := term.ends(t)
	require.Equal(t, 3, code, seen)
	require.Contains(t, seen, "halted: too slow")
	p.fails(t, 3, "", "status")
	require.Contains(t, p.ok(t, "retry"), "done: 2 done")
}

func TestVerify(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo")
	require.Equal(t, "2 databases looked into, target version 1: 0 drifts\n", p.ok(t, "verify"))
	p.addMigration(t, 2, "ALTER TABLE orders ADD COLUMN note text;")
	p.ok(t, "migrate")
	// As if somebody had restored an older file by hand.
	p.ok(t, "exec", "DELETE FROM goose_db_version WHERE version_id = 2", "bravo", "--write", "--force")
	p.ok(t, "exec", "ALTER TABLE orders DROP COLUMN note", "bravo", "--write", "--force")
	p.ok(t, "status")
	o := p.fails(t, 2, "", "verify")
	require.Contains(t, o.out, "bravo   s1      book     the catalog says version 2, the database 1")
	o = p.run(t, "verify", "--json")
	require.Equal(t, 2, o.code)
	require.Len(t, parse[migrate.Verification](t, o.out).Drifts, 2)
	p.fails(t, 2, "corrected in the catalog: 1 tenant; run `tenancy migrate`", "verify", "--fix")
	require.Contains(t, p.ok(t, "migrate"), "done: 1 done")
	p.ok(t, "verify", "--state", "active", "--server", "s1")
}

func TestExec(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo")
	require.Equal(t, "TENANT  AFFECTED\nacme    2\nbravo   2\n",
		p.ok(t, "exec", "INSERT INTO orders VALUES (1, 10), (2, 20)", "--write", "--force"))
	require.Equal(t, "TENANT  AFFECTED\nacme    0\n", p.ok(t, "exec", "CREATE TABLE t (a, b)", "acme", "--write", "--force"))
	require.Equal(t, `{"tenant":"acme","affected":1}`+"\n",
		p.ok(t, "exec", "INSERT INTO t VALUES ('x' || char(10) || char(27) || '[31my', x'00ff')", "acme", "--write", "--force", "--json"))
	require.Equal(t, "TENANT  a             b\nacme    x\\n\\x1b[31my  \\x00ff\n", p.ok(t, "exec", "SELECT * FROM t", "acme"))
	require.Equal(t, `{"tenant":"acme","row":{"a":"x\n\u001b[31my","b":"\\x00ff","n":null,"i":7,"f":1.5,"i_2":8}}`+"\n",
		p.ok(t, "exec", "SELECT *, NULL AS n, 7 AS i, 1.5 AS f, 8 AS i FROM t", "acme", "--json"))

	for _, write := range []string{
		"DELETE FROM orders", "DROP TABLE orders", "PRAGMA user_version = 7", "PRAGMA query_only = 0", "VACUUM INTO 'copy.db'",
		"ATTACH 'other.db' AS o", "BEGIN", "REPLACE INTO orders VALUES (1, 1)",
	} {
		p.fails(t, 1, "say --write if you mean it", "exec", write)
	}
	p.fails(t, 1, "these are several statements", "exec", "SELECT 1; DELETE FROM orders")
	p.fails(t, 1, "these are several statements", "exec", "SELECT ';' /* ; */; -- ;\n DELETE FROM orders", "--write", "--force")
	p.fails(t, 1, "the statement is empty", "exec", " -- nothing\n;")
	o := p.fails(t, 2, "failed: acme: attempt to write a readonly database", "exec", "WITH x AS (SELECT 1) DELETE FROM orders")
	require.Contains(t, o.err, "0 done, 2 failed\n")
	require.Equal(t, "TENANT  n\nacme    2\nbravo   2\n", p.ok(t, "exec", "SELECT count(*) AS n FROM orders;"))

	o = p.fails(t, 2, "failed: bravo: SQL logic error: no such table: t", "exec", "SELECT b FROM t")
	require.Contains(t, o.out, "acme")
	require.Contains(t, o.err, "1 done, 1 failed\n")
	o = p.run(t, "exec", "SELECT id FROM orders", "acme", "--max-rows", "1")
	require.Equal(t, "TENANT  id\nacme    1\n", o.out)
	require.Equal(t, "acme has more than 1 rows; see --max-rows\n", o.err)
	p.fails(t, 2, "it took longer than --timeout 50ms", "exec", "--timeout", "50ms", "--max-rows", "0",
		"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT 1 FROM c) SELECT i FROM c", "acme")
}

// Who had their turn under a name has no other.
func TestExecCheckpoint(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo")
	p.ok(t, "exec", "CREATE TABLE counts (n)", "acme", "--write", "--force")
	const insert = "INSERT INTO counts VALUES (1)"
	p.fails(t, 2, "run it again with the same --checkpoint for the others", "exec", insert, "--write", "--force", "--checkpoint", "counts 1")
	p.ok(t, "exec", "CREATE TABLE counts (n)", "bravo", "--write", "--force")
	require.Equal(t, "TENANT  AFFECTED\nbravo   1\n", p.ok(t, "exec", insert, "--write", "--force", "--checkpoint", "counts 1"))
	require.Equal(t, "TENANT  n\nacme    1\nbravo   1\n", p.ok(t, "exec", "SELECT count(*) AS n FROM counts"))
	p.ok(t, "exec", insert, "--write", "--force", "--checkpoint", "counts 1", "--forget-checkpoint")
	require.Equal(t, "TENANT  n\nacme    2\nbravo   2\n", p.ok(t, "exec", "SELECT count(*) AS n FROM counts"))
}
