package orders

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/testpg"
	"github.com/gorm-tenancy/tenancy/tenancytest/testsqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// An application has one Kit, of the database that it uses. This one can use
// both.
var sqlite, postgres = kit(testsqlite.Backend{}), kit(testpg.Backend{})

func kit(b tenancytest.Backend) *tenancytest.Kit {
	return tenancytest.New(tenancytest.Config{
		Backend:    b,
		Migrator:   tenancytest.AutoMigrate(TenantModels()...),
		MainModels: MainModels(),
		GORM:       func() *gorm.Config { return &gorm.Config{Logger: logger.Discard} },
	})
}

func TestMain(m *testing.M) { os.Exit(sqlite.Run(postgres.Main(m))) }

// onEach runs a test on both databases; on PostgreSQL, where there is one.
func onEach(t *testing.T, f func(t *testing.T, env *tenancytest.Env)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, sqlite.Env(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, postgres.Env(t))
	})
}

// withPlan gives ctx's tenant a plan, in the main database.
func withPlan(t *testing.T, env *tenancytest.Env, ctx context.Context, maxOpen int) context.Context {
	t.Helper()
	id, _ := tenant.ID(ctx)
	require.NoError(t, env.DB.WithContext(ctx).Create(&Plan{Tenant: id, MaxOpen: maxOpen}).Error)
	return ctx
}
