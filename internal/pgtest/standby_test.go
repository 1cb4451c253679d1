package pgtest_test

import (
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

func TestStandbyOfShared(t *testing.T) {
	defer func() {
		if got := recover(); got != "pgtest: Standby of a shared server: use Start" {
			t.Errorf("panic is %v", got)
		}
	}()
	pgtest.Shared(t).Standby(t)
}
