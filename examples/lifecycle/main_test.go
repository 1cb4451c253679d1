package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// life is what the program prints, on every kind of server.
const life = `
== a tenant is created
before: tenancy: open: tenant acme: tenant not found
acme is active on one, at version 1 of the schema
created again, the same tenant: true
acme has: welcome, acme; buy anvils

== sign-up takes a database that is ready
ready databases on one: 1
bravo is active
ready databases left on one: 0
bravo has: welcome, bravo

== out of service and back
acme's write: tenancy: open: tenant acme: tenant suspended
bravo has: welcome, bravo
acme has: welcome, acme; buy anvils

== another id
acme: tenancy: open: tenant acme: tenant not found
apex has: welcome, acme; buy anvils

== a copy, from a dump
apex-test has: welcome, acme; buy anvils; only a test
apex has: welcome, acme; buy anvils

== a database that was there before
veteran is active, adopted: true, at version 1 of the schema
veteran has: made by hand, years ago

== to another server
apex was on one and is on two, the same tenant: true
apex has: welcome, acme; buy anvils

== work that failed is finished
delta is provisioning: its create stopped at step "seed": the service with the welcome texts is down
meanwhile: tenancy: open: tenant delta: tenant not found
resumed: 1 finished, 0 failed, 0 in work elsewhere
delta has: welcome, delta

== all of them, and some of them
on the gold plan: apex
notes: apex 2, apex-test 3, bravo 1, delta 1, veteran 1

== the end, with a backup
apex-test is deleted
apex-test: tenancy: open: tenant apex-test: tenant not found
apex-test has: welcome, acme; buy anvils; only a test

== what is there is what is known
0 orphans, 0 missing, 0 servers that can't be reached
`

// requireLife compares what was printed with life, where a line may go on.
func requireLife(t *testing.T, got string) {
	t.Helper()
	want := strings.Split(life, "\n")
	lines := strings.Split(got, "\n")
	require.Len(t, lines, len(want), got)
	for i, line := range lines {
		require.True(t, strings.HasPrefix(line, want[i]), "line %d: %q\nwant:    %q\n%s", i+1, line, want[i], got)
	}
}

func TestRunOnSQLite(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out bytes.Buffer
	require.NoError(t, run(&out, dsns{}), "%s", &out)
	requireLife(t, out.String())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestRunOnPostgres(t *testing.T) {
	one, two := pgtest.Start(t), pgtest.Start(t)
	for _, pg := range []*pgtest.Cluster{one, two} {
		setUp(t, pg)
	}
	for _, test := range []struct {
		where string
		dsns
	}{
		{"two roles, two servers", dsns{as(t, one, "tenancy_admin"), as(t, one, "app"), as(t, two, "tenancy_admin"), as(t, two, "app")}},
		{"one role, two servers", dsns{admin: as(t, one, "tenancy_admin"), admin2: as(t, two, "tenancy_admin")}},
		{"one server", dsns{admin: as(t, one, "tenancy_admin"), app: as(t, one, "app")}},
	} {
		t.Run(test.where, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, run(&out, test.dsns), "%s", &out)
			if test.admin2 != "" {
				requireLife(t, out.String())
			} else {
				require.Contains(t, out.String(), "there is one server only")
			}
			for _, pg := range []*pgtest.Cluster{one, two} {
				require.Equal(t, "main", ask(t, pg, "postgres",
					"SELECT string_agg(datname, ' ') FROM pg_database WHERE datdba = 'tenancy_admin'::regrole"), "databases that are left")
				require.Equal(t, "0", ask(t, pg, "main",
					"SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)"+
						" + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace)"), "tables that are left")
			}
		})
	}
	t.Run("a main database with a catalog", func(t *testing.T) {
		one.Exec(t, "main", "CREATE TABLE tenancy_catalog ()")
		err := run(&bytes.Buffer{}, dsns{admin: as(t, one, "tenancy_admin"), app: as(t, one, "app")})
		require.ErrorContains(t, err, "has a catalog already")
		require.Equal(t, "1", ask(t, one, "main", "SELECT count(*) FROM pg_class WHERE relname = 'tenancy_catalog'"))
	})
}

// setUp runs the SQL that docs/lifecycle.md tells its readers to run.
func setUp(t *testing.T, pg *pgtest.Cluster) {
	t.Helper()
	page, err := os.ReadFile("../../docs/lifecycle.md")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(page), "```sql\n")
	require.True(t, ok)
	block, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	for q := range strings.SplitSeq(block, ";\n") {
		pg.Exec(t, "postgres", q)
	}
}

// as is the DSN of the main database for a role.
func as(t *testing.T, pg *pgtest.Cluster, role string) string {
	t.Helper()
	u, err := url.Parse(pg.DSN("main"))
	require.NoError(t, err)
	u.User = url.User(role)
	return u.String()
}

func ask(t *testing.T, pg *pgtest.Cluster, database, query string) string {
	t.Helper()
	var answer any
	require.NoError(t, pg.Conn(t, database).QueryRow(t.Context(), query).Scan(&answer))
	return fmt.Sprint(answer)
}
