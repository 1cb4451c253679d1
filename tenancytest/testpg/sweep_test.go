package testpg

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancytest/internal/backendtest"
)

// A session that the server ends because it is idle would take the run's lock
// with it: another run would drop what this one has.
func TestIdleSessions(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	pg.Exec(t, "postgres", "ALTER ROLE postgres SET idle_session_timeout = '1h'")
	s := open(t, pg.DSN("postgres"))
	var timeout string
	require.NoError(t, s.lock.QueryRowContext(t.Context(), "SHOW idle_session_timeout").Scan(&timeout))
	require.Equal(t, "0", timeout)
}

// A run that has lost its lock, and still has sessions, keeps its databases.
func TestLostLock(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	first := open(t, pg.DSN("postgres"))
	template, err := first.Template(t.Context(), "k", false, backendtest.Table)
	require.NoError(t, err)
	var pid int
	require.NoError(t, first.lock.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
	pg.Exec(t, "postgres", "SELECT pg_terminate_backend($1)", pid)
	admin := pg.Admin(t)
	require.Eventually(t, func() bool {
		var n int
		return admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid).Scan(&n) == nil && n == 0
	}, 10*time.Second, 10*time.Millisecond)

	second := &server{pkg: "other"}
	t.Cleanup(func() { _ = second.Close(context.Background()) })
	require.NoError(t, second.begin(t.Context(), pg.DSN("postgres")))
	require.NoError(t, second.sweep(t.Context(), time.Millisecond))
	require.Contains(t, names(t, pg, "tenancytest_"), template)
}
