package testpg

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancytest/internal/backendtest"
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
		name, err := s.Template(t.Context(), "00000000000000000000", true, backendtest.Table)
		require.NoError(t, err)
		_, err = s.Clone(t.Context(), name)
		require.NoError(t, err)
	}
}
