package testpg

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// Each role of a server has templates of its own: those of others it may
// neither mark nor copy.
func TestTwoRoles(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	for _, role := range []string{"kit_one", "kit_two"} {
		pg.Exec(t, "postgres", "CREATE ROLE "+role+" LOGIN CREATEDB PASSWORD 'x'")
		u, err := url.Parse(pg.DSN("postgres"))
		require.NoError(t, err)
		u.User = url.UserPassword(role, "x")
		s := open(t, u.String())
		name, err := s.Template(t.Context(), "00000000000000000000", true, table)
		require.NoError(t, err)
		_, err = s.Clone(t.Context(), name)
		require.NoError(t, err)
	}
}

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
