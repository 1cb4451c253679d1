package main

import (
	"database/sql"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	_ "github.com/glebarez/go-sqlite"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// block keeps others from writing to the tenants' databases until unblock.
func (p *place) block(t *testing.T) (unblock func()) {
	t.Helper()
	var all []*sql.DB
	for _, tenant := range parse[[]catalog.Tenant](t, p.ok(t, "list", "--json")) {
		db, err := sql.Open("sqlite", filepath.Join(p.dir, tenant.Server, tenant.Database))
		require.NoError(t, err)
		db.SetMaxOpenConns(1)
		_, err = db.Exec("BEGIN IMMEDIATE")
		require.NoError(t, err)
		all = append(all, db)
	}
	return func() {
		for _, db := range all {
			_, err := db.Exec("ROLLBACK")
			require.NoError(t, err)
			require.NoError(t, db.Close())
		}
	}
}

// atWork waits until a tenant is in work.
func (p *place) atWork(t *testing.T) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "main.db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.Eventually(t, func() bool {
		var n int
		err := db.QueryRow("SELECT count(*) FROM tenancy_tenants WHERE lease_owner <> ''").Scan(&n)
		return err == nil && n == 1
	}, patience, patience/1000)
}

func TestBar(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo", "delta")
	p.addMigration(t, 2, "ALTER TABLE orders ADD COLUMN note text;")
	term := p.terminal(t, "migrate")
	code, seen := term.ends(t)
	require.Zero(t, code, seen)
	require.Contains(t, seen, "0 failed   0% |")
	require.Contains(t, seen, "100% |██████████████████████████████| (3/3, ")
	require.Contains(t, seen, "tenants/s)")
	require.Contains(t, seen, "done: 3 done, to version 2")
	require.NotContains(t, seen, "\x1b[", "colour, or a cursor that moves")
	p.ok(t, "status")
}

func TestBarShowsFailures(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo", "delta")
	p.ok(t, "exec", "CREATE TABLE taken (x)", "bravo", "--write", "--force")
	p.addMigration(t, 2, "CREATE TABLE taken (id integer);")
	term := p.terminal(t, "migrate")
	code, seen := term.ends(t)
	require.Equal(t, 2, code, seen)
	require.Contains(t, seen, "failed: bravo on s1: ")
	require.Contains(t, seen, "1 failed 100% |")
	require.Contains(t, seen, "partial: 2 done, 1 failed")
	require.Contains(t, seen, "try those again: tenancy retry")
}

func TestCtrlC(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *terminal){
		"Ctrl-C":  func(t *testing.T, term *terminal) { term.typed(t, ctrlC) },
		"SIGTERM": func(t *testing.T, term *terminal) { require.NoError(t, term.cmd.Process.Signal(syscall.SIGTERM)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStop(t, end)
		})
	}
}

func testStop(t *testing.T, end func(*testing.T, *terminal)) {
	p := newPlace(t).with(t, "acme", "bravo", "delta")
	p.addMigration(t, 2, "ALTER TABLE orders ADD COLUMN note text;")
	unblock := p.block(t)
	term := p.terminal(t, "migrate", "--workers", "1")
	p.atWork(t)
	term.expect(t, "(0/3")
	end(t, term)
	term.expect(t, "stopping: what is in work is finished first")
	unblock()
	code, seen := term.ends(t)
	require.Equal(t, 2, code, seen)
	require.Contains(t, seen, "stopped: 1 done, 2 left")
	require.Contains(t, seen, "stopped; run it again to go on")
	o := p.fails(t, 2, "run `tenancy migrate`", "status")
	require.Contains(t, o.out, "2 behind")

	require.Contains(t, p.ok(t, "migrate"), "done: 2 done, 1 up to date before")
	p.ok(t, "status")
	require.Equal(t, 3, strings.Count(p.ok(t, "exec", "SELECT note FROM orders UNION SELECT 'there'"), "there"))
}

// A second one cancels what is in work.
func TestCtrlCTwice(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo", "delta")
	// It never ends by itself.
	const endless = "CREATE TABLE big AS WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT 1 FROM c) SELECT count(*) FROM c;"
	p.addMigration(t, 2, endless)
	term := p.terminal(t, "migrate", "--workers", "1")
	term.expect(t, "migrating 3 tenants")
	term.typed(t, ctrlC)
	term.expect(t, "stopping: ")
	term.typed(t, ctrlC)
	code, seen := term.ends(t)
	require.Equal(t, 2, code, seen)
	require.Contains(t, seen, "stopped: 0 done, 3 left")
	require.Contains(t, seen, "run it again to go on")

	p.addMigration(t, 2, "ALTER TABLE orders ADD COLUMN note text;")
	require.Contains(t, p.ok(t, "migrate"), "done: 3 done")
}

func TestPrompts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, keys string
		code       int
		say        string
		left       bool
	}{
		{"the right id", "acme\r", 0, "acme is removed; its backup is ", false},
		{"another id", "bravo\r", 1, "that is not acme; nothing was done", true},
		{"nothing", "\r", 1, "that is not acme; nothing was done", true},
		{"Ctrl-D", ctrlD, 1, "no answer; nothing was done", true},
		{"Ctrl-C", ctrlC, 1, "interrupted; nothing was done", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t).with(t, "acme")
			term := p.terminal(t, "remove", "acme")
			term.expect(t, "Type acme to go on: ")
			term.typed(t, test.keys)
			code, seen := term.ends(t)
			require.Equal(t, test.code, code, seen)
			require.Contains(t, seen, test.say)
			require.Equal(t, test.left, strings.Contains(p.ok(t, "list"), "acme"))
		})
	}
}

func TestPromptOfExec(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme", "bravo")
	term := p.terminal(t, "exec", "INSERT INTO orders VALUES (1, 2)", "--write")
	term.expect(t, "the statement runs in 2 tenants\r\nType 2 to go on: ")
	term.typed(t, "2\r")
	code, seen := term.ends(t)
	require.Zero(t, code, seen)
	require.Equal(t, 2, strings.Count(p.ok(t, "exec", "SELECT total FROM orders", "--json"), `{"total":2}`))
}

func TestPromptOfRestore(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme")
	p.ok(t, "exec", "INSERT INTO orders VALUES (1, 2)", "--write", "--force")
	p.ok(t, "dump", "acme", "-o", "acme.dump")
	p.ok(t, "exec", "DELETE FROM orders", "--write", "--force")
	term := p.terminal(t, "restore", "acme", "acme.dump", "--replace")
	term.expect(t, "the dump takes the place of the tenant that is there")
	term.typed(t, "acme\r")
	code, seen := term.ends(t)
	require.Zero(t, code, seen)
	require.Equal(t, "TENANT  total\nacme    2\n", p.ok(t, "exec", "SELECT total FROM orders"))

	term = p.terminal(t, "dump", "acme")
	code, seen = term.ends(t)
	require.Equal(t, 1, code, seen)
	require.Contains(t, seen, "a dump is no text for a terminal")
}
