package tenancytest_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// A Config.Fingerprint says nothing of the main models: those that AutoMigrate
// migrates by default change the template by themselves.
func TestFingerprintAndMainModels(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		for _, plan := range []any{plan1(), plan2()} {
			k := tenancytest.New(tenancytest.Config{
				Backend: b, Migrator: tenancytest.AutoMigrate(&Line{}), MainModels: []any{plan}, Fingerprint: "files " + t.Name(), GORM: quiet,
			})
			env := k.Env(t)
			require.NoError(t, env.DB.WithContext(tenant.Main(t.Context())).Create(plan).Error)
			t.Cleanup(func() { require.NoError(t, k.Close()) })
		}
	})
}

func plan1() any {
	type Plan struct{ ID uint }
	return &Plan{}
}

func plan2() any {
	type Plan struct {
		ID    uint
		Price int
	}
	return &Plan{}
}

// Whether a tenant's template has the table of a main model is looked at for
// each set of main models, also where there is a template.
func TestMainTableInATemplateThatIsThere(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		for _, models := range [][]any{nil, {&Plan{}}} {
			k := tenancytest.New(tenancytest.Config{
				Backend: b, Migrator: tenancytest.AutoMigrate(&Plan{}, &Line{}), MainModels: models, GORM: quiet,
			})
			r := record("TestX", func(r *recorder) { k.Env(r) })
			require.Equal(t, models != nil, r.failed, r.said())
			require.NoError(t, k.Close())
		}
	})
}

// A Migrator that ends its goroutine, as t.FailNow does, fails the tests after
// that one too, and leaves nothing behind.
func TestMigratorEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		var first *recorder
		k := tenancytest.New(tenancytest.Config{Backend: b, GORM: quiet, Migrator: migrate.Func(1, func(context.Context, *sql.DB) error {
			first.Fatalf("no such file")
			return nil
		})})
		record("TestFirst", func(r *recorder) { first = r; k.Env(r) })
		require.True(t, first.failed)
		r := record("TestSecond", func(r *recorder) { k.Env(r) })
		require.True(t, r.failed)
		require.Contains(t, r.said(), "has ended its goroutine")
		require.NoError(t, k.Close())
	})
}
