package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
)

func TestLife(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write(t, "tenancy.yaml", strings.Replace(sqliteConfig, "  s1: {dir: s1}\n", "  s1: {dir: s1}\n  s2: {dir: s2}\n", 1))
	p.fails(t, 1, "the catalog's tables are missing or out of date; run `tenancy migrate`", "list")
	p.with(t)

	acme := parse[catalog.Tenant](t, p.ok(t, "create", "acme", "--server", "s1", "--label", "plan=gold", "--json"))
	require.Equal(t, catalog.Active, acme.State)
	require.Equal(t, map[string]string{"plan": "gold"}, acme.Labels)
	require.Equal(t, acme, parse[catalog.Tenant](t, p.ok(t, "show", "acme", "--json")))
	require.Contains(t, p.ok(t, "show", "acme"), "labels:      plan=gold\n")
	p.fails(t, 1, "tenant exists", "create", "acme", "--server", "s2")
	p.fails(t, 1, "invalid tenant id", "create", "no/id")

	p.ok(t, "exec", "INSERT INTO orders VALUES (1, 5)", "acme", "--write", "--force")
	require.Equal(t, "acme is suspended on s1, at version 1: unpaid\n", p.ok(t, "suspend", "acme", "--reason", "unpaid"))
	p.fails(t, 2, "failed: acme: ", "exec", "SELECT 1", "acme")
	require.Equal(t, "acme is active on s1, at version 1\n", p.ok(t, "resume", "acme"))
	require.Equal(t, "acme is active on s2, at version 1\n", p.ok(t, "move", "acme", "s2"))
	require.Equal(t, "apex is active on s2, at version 1\n", p.ok(t, "rename", "acme", "apex"))
	require.Equal(t, "TENANT  total\napex    5\n", p.ok(t, "exec", "SELECT total FROM orders"))

	p.fails(t, 1, "there is no terminal to ask on, so say --force", "remove", "apex")
	gone := parse[catalog.Tenant](t, p.ok(t, "remove", "apex", "--force", "--json"))
	require.Equal(t, catalog.Deleted, gone.State)
	require.FileExists(t, gone.Backup)
	p.fails(t, 1, "tenant not found", "show", "apex")
	require.Contains(t, p.ok(t, "list", "--state", "deleted"), gone.Backup)

	back := parse[catalog.Tenant](t, p.ok(t, "restore", "acme", gone.Backup, "--server", "s1", "--json"))
	require.Equal(t, "s1", back.Server)
	require.Equal(t, "TENANT  total\nacme    5\n", p.ok(t, "exec", "SELECT total FROM orders"))
}

func TestDumpAndReplace(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme")
	p.ok(t, "exec", "INSERT INTO orders VALUES (1, 5)", "--write", "--force")
	o := p.run(t, "dump", "acme")
	require.Zero(t, o.code, o.err)
	require.True(t, strings.HasPrefix(o.out, "SQLite format 3\x00"))
	require.Empty(t, p.ok(t, "dump", "acme", "--output", "acme.dump"))
	info, err := os.Stat(filepath.Join(p.dir, "acme.dump"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	p.ok(t, "exec", "UPDATE orders SET total = 6", "--write", "--force")
	p.fails(t, 1, "say --replace", "restore", "acme", "acme.dump")
	p.fails(t, 1, "there is no terminal to ask on", "restore", "acme", "acme.dump", "--replace")
	p.fails(t, 1, "no tenant bravo to replace", "restore", "bravo", "acme.dump", "--replace", "--force")
	p.write(t, "half.dump", o.out[:len(o.out)/2])
	p.fails(t, 1, "cut off", "restore", "acme", "half.dump", "--replace", "--force")
	require.Equal(t, "TENANT  total\nacme    6\n", p.ok(t, "exec", "SELECT total FROM orders"), "a bad dump leaves it as it was")

	piped := p.runWith(t, o.out, "restore", "acme", "--replace", "--force")
	require.Zero(t, piped.code, piped.err)
	require.Equal(t, "TENANT  total\nacme    5\n", p.ok(t, "exec", "SELECT total FROM orders"))
	require.Contains(t, p.ok(t, "list", "--state", "deleted"), "backups/acme-", "who was replaced has a backup")
	require.Len(t, parse[[]catalog.Tenant](t, p.ok(t, "list", "--json")), 1)
}

func TestList(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t)
	require.Equal(t, "[]\n", p.ok(t, "list", "--json"))
	p.ok(t, "create", "acme", "--label", "plan=gold")
	p.ok(t, "create", "bravo", "--label", "plan=free")
	p.ok(t, "suspend", "bravo")
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "acme bravo"},
		{[]string{"bravo"}, "bravo"},
		{[]string{"--state", "active"}, "acme"},
		{[]string{"--state", "active,suspended"}, "acme bravo"},
		{[]string{"--label", "plan=free"}, "bravo"},
		{[]string{"--server", "s1", "--label", "plan=gold"}, "acme"},
	} {
		var ids []string
		for _, tenant := range parse[[]catalog.Tenant](t, p.ok(t, append([]string{"list", "--json"}, test.args...)...)) {
			ids = append(ids, tenant.ID)
		}
		require.Equal(t, test.want, strings.Join(ids, " "), test.args)
	}
	p.fails(t, 1, "no tenant is selected", "list", "--label", "plan=none")
	p.fails(t, 1, "no tenant is selected", "list", "acme", "--label", "plan=free")
	p.fails(t, 1, `there is no state "asleep"`, "list", "--state", "asleep")
	p.fails(t, 1, "tenant not found", "list", "nobody")
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme")
	kept := p.ok(t, "remove", "acme", "--keep-database", "--force")
	_, name, found := strings.Cut(strings.TrimSpace(kept), "kept:")
	require.True(t, found, kept)
	require.Equal(t, "bravo is active on s1, at version 1\n", p.ok(t, "adopt", "bravo", name))
	p.fails(t, 1, "exists", "adopt", "delta", name)
}

func TestReadyAndTemplate(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.env = []string{"TENANCY_READY=2"}
	p.with(t)
	require.Equal(t, "{\n  \"done\": true\n}\n", p.ok(t, "template", "--json"))
	require.Equal(t, "SERVER  TENANTS  READY\ns1      0        2\n", p.ok(t, "ready"))
	p.ok(t, "create", "acme")
	require.Equal(t, "SERVER  TENANTS  READY\ns1      1        1\n", p.ok(t, "ready", "--drop", "s1", "--keep", "1"), "nothing to ask for")
	p.fails(t, 1, "there is no terminal to ask on", "ready", "--drop", "s1")
	p.fails(t, 1, `there is no server "s9"`, "ready", "--drop", "s9")
	require.JSONEq(t, `[{"server": "s1", "tenants": 1, "ready": 0}]`, p.ok(t, "ready", "--drop", "s1", "--force", "--json"))
}

// What a process left that died is finished by resume.
func TestResume(t *testing.T) {
	t.Parallel()
	p := newPlace(t).with(t, "acme")
	require.Equal(t, "0 finished, 0 failed, 0 busy\n", p.ok(t, "resume"))
	p.env = []string{"TENANCY_BACKUPS=" + filepath.Join(p.dir, "tenancy.yaml")} // no directory
	o := p.fails(t, 1, "run `tenancy remove` or `tenancy resume` again", "remove", "acme", "--force")
	require.Contains(t, o.err, `step "backup" failed`)
	require.Contains(t, p.ok(t, "list", "--unfinished"), "remove is unfinished")
	o = p.run(t, "resume")
	require.Equal(t, 2, o.code, o)
	require.Contains(t, o.out, "failed: remove of acme: ")
	p.fails(t, 2, "run `tenancy resume` to finish", "status")
	p.env = nil
	require.Contains(t, p.ok(t, "resume"), "1 finished, 0 failed, 0 busy\n")
	p.ok(t, "status")
}
