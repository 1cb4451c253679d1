package pgtest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestStandby(t *testing.T) {
	t.Parallel()
	primary := pgtest.Start(t)
	name := primary.CreateDatabase(t)
	primary.Exec(t, name, "CREATE TABLE notes (text text)")
	one, two := primary.Standby(t), primary.Standby(t, pgtest.MaxConns(150))
	count := func(pg *pgtest.Cluster) (n int) {
		t.Helper()
		if err := pg.Conn(t, name).QueryRow(t.Context(), "SELECT count(*) FROM notes").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	write := func(pg *pgtest.Cluster) { t.Helper(); pg.Exec(t, name, "INSERT INTO notes VALUES ('x')") }
	want := func(pg *pgtest.Cluster, want int) {
		t.Helper()
		if got := count(pg); got != want {
			t.Fatalf("%s has %d notes, not %d", pg.Addr(), got, want)
		}
	}
	write(primary)
	one.Follow(t, primary)
	two.Follow(t, primary)
	want(one, 1)
	want(two, 1)
	if got, err := ask(t, two, "SELECT current_setting('max_connections')"); err != nil || got != "150" {
		t.Errorf("max_connections is %q, %v", got, err)
	}
	if _, err := one.Conn(t, name).Exec(t.Context(), "INSERT INTO notes VALUES ('x')"); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("a standby takes writes: %v", err)
	}

	two.PauseReplay(t)
	write(primary)
	one.Follow(t, primary)
	want(one, 2)
	want(two, 1) // it lags
	two.ResumeReplay(t)
	two.Follow(t, primary)
	want(two, 2)

	two.Kill()
	mustNotAnswer(t, two)
	write(primary)
	two.Restart()
	two.Follow(t, primary)
	want(two, 3)
	one.Freeze()
	mustNotAnswer(t, one)
	one.Thaw()
	mustAnswer(t, one)

	primary.Kill()
	one.Promote(t)
	write(one)
	want(one, 4)
	want(two, 3) // it waits for the primary that is gone
	two.StreamFrom(t, one)
	want(two, 4)
}

// What a standby misses, it catches up with: also what its primary has no need
// of any more, and after the primary was away.
func TestStandbyWasAway(t *testing.T) {
	t.Parallel()
	primary := pgtest.Start(t)
	primary.Exec(t, "postgres", "CREATE TABLE notes (text text)")
	standby := primary.Standby(t)
	want := func(n string) {
		t.Helper()
		if got, err := ask(t, standby, "SELECT count(*)::text FROM notes"); err != nil || got != n {
			t.Fatalf("the standby has %s notes, %v; want %s", got, err, n)
		}
	}

	standby.Kill()
	for _, sql := range []string{"INSERT INTO notes VALUES ('x')", "SELECT pg_switch_wal()", "CHECKPOINT", "CHECKPOINT"} {
		primary.Exec(t, "postgres", sql)
	}
	standby.Restart()
	standby.Follow(t, primary)
	want("1")

	standby.Freeze()
	primary.Exec(t, "postgres", "INSERT INTO notes VALUES ('x')")
	standby.Thaw()
	standby.Follow(t, primary)
	want("2")

	primary.Stop()
	want("2")
	primary.Restart()
	primary.Exec(t, "postgres", "INSERT INTO notes VALUES ('x')")
	standby.Follow(t, primary)
	want("3")
	if !standby.InRecovery(t) || primary.InRecovery(t) {
		t.Error("the standby is none, or the primary is one")
	}

	standby.PauseReplay(t)
	standby.Promote(t) // ends the pause
	if standby.InRecovery(t) {
		t.Error("the promoted standby is still one")
	}
	standby.Exec(t, "postgres", "INSERT INTO notes VALUES ('x')")
	want("4")
}

func TestStandbyOfShared(t *testing.T) {
	if os.Getenv(pgtest.EnvDSN) != "" {
		pgtest.Shared(t).Standby(t) // skips
	}
	defer func() {
		if got := recover(); got != "pgtest: Standby of a shared server: use Start" {
			t.Errorf("panic is %v", got)
		}
	}()
	pgtest.Shared(t).Standby(t)
}
