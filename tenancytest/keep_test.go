package tenancytest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/testpg"
)

// With TENANCY_TEST_KEEP=1 what would be a sandbox is kept, too.
func TestKeepEnv(t *testing.T) {
	dsn := pgtest.Shared(t).DSN("postgres")
	t.Setenv(tenancytest.KeepEnv, "1")
	k := newKit(t, tenancytest.Config{Backend: testpg.Backend{DSN: dsn}})
	r := record("TestBroken", func(r *recorder) {
		env := k.Env(r)
		require.NoError(t, env.DB.WithContext(env.Tenant("acme")).Create(&Order{Title: "anvil"}).Error)
		r.Errorf("broken")
	})
	require.NoError(t, k.Close())
	require.Equal(t, 1, keptRows(t, r.said()))
}
