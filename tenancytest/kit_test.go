package tenancytest_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/testpg"
	"github.com/gorm-tenancy/tenancy/tenancytest/testsqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// onEach runs f on each backend.
func onEach(t *testing.T, f func(t *testing.T, b tenancytest.Backend)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, testsqlite.Backend{Dir: t.TempDir()})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, testpg.Backend{DSN: pgtest.Shared(t).DSN("postgres")})
	})
}

func quiet() *gorm.Config { return &gorm.Config{Logger: logger.Discard} }

// newKit returns a Kit that is closed at the test's end.
func newKit(t *testing.T, cfg tenancytest.Config) *tenancytest.Kit {
	if cfg.Migrator == nil {
		cfg.Migrator = tenancytest.AutoMigrate(&Order{}, &Line{})
	}
	cfg.MainModels = []any{&Plan{}}
	cfg.GORM = quiet
	k := tenancytest.New(cfg)
	t.Cleanup(func() { require.NoError(t, k.Close()) })
	return k
}

func count(t *testing.T, db *gorm.DB, ctx context.Context, model any) int {
	t.Helper()
	var n int64
	require.NoError(t, db.WithContext(ctx).Model(model).Count(&n).Error)
	return int(n)
}

// Many tests in parallel write the same unique values, and each sees its own.
func TestIsolation(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		t.Run("all", func(t *testing.T) {
			for i := range 12 {
				t.Run(fmt.Sprint(i), func(t *testing.T) {
					t.Parallel()
					env := k.Env(t)
					acme, bravo := env.Two()
					require.Zero(t, count(t, env.DB, acme, &Order{}))
					require.Zero(t, count(t, env.DB, tenant.Main(acme), &Plan{}))
					plan := Plan{Name: "gold"}
					require.NoError(t, env.DB.Create(&plan).Error)
					for _, ctx := range []context.Context{acme, bravo} {
						err := env.DB.WithContext(ctx).Create(&Order{Title: "anvil", PlanID: &plan.ID, Lines: []Line{{Text: "x"}}}).Error
						require.NoError(t, err)
					}
					require.NoError(t, env.DB.WithContext(bravo).Create(&Order{Title: "rocket"}).Error)
					require.Equal(t, 1, count(t, env.DB, acme, &Order{}))
					require.Equal(t, 2, count(t, env.DB, bravo, &Order{}))
					require.Equal(t, 1, count(t, env.DB, acme, &Plan{}))

					var o Order
					require.NoError(t, env.DB.WithContext(acme).Preload("Plan").Preload("Lines").First(&o).Error)
					require.Equal(t, "gold", o.Plan.Name)
					require.Len(t, o.Lines, 1)
					require.ErrorIs(t, env.DB.WithContext(bravo).Save(&o).Error, tenancy.ErrWrongTenant)
				})
			}
		})
		// Afterwards nothing is there.
		for range 3 {
			record("after", func(r *recorder) {
				env := k.Env(r)
				a, b := env.Two()
				require.Zero(t, count(t, env.DB, a, &Order{}))
				require.Zero(t, count(t, env.DB, b, &Order{}))
				require.Zero(t, count(t, env.DB, a, &Plan{}))
			}).passes(t)
		}
	})
}

// What production does in transactions works in a test, too.
func TestTransactions(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		for name, open := range map[string]func(*tenancytest.Env, string) context.Context{
			"Tenant": (*tenancytest.Env).Tenant, "Clone": (*tenancytest.Env).Clone} {
			env := k.Env(t)
			ctx := open(env, "acme")
			db := env.DB.WithContext(ctx)
			require.NoError(t, db.Create(&Order{Title: "anvil"}).Error, name)
			require.Error(t, db.Create(&Order{Title: "anvil"}).Error, name)
			require.NoError(t, db.Create(&Order{Title: "after"}).Error, "a unique violation spoils nothing: %s", name)
			boom := errors.New("boom")
			err := db.Transaction(func(tx *gorm.DB) error {
				if err := tx.Create(&Order{Title: "undone"}).Error; err != nil {
					return err
				}
				return boom
			})
			require.ErrorIs(t, err, boom, name)
			require.NoError(t, db.Transaction(func(tx *gorm.DB) error {
				err := tx.Transaction(func(tx *gorm.DB) error { return errors.Join(tx.Create(&Order{Title: "inner"}).Error, boom) })
				if !errors.Is(err, boom) {
					return err
				}
				return tx.Create(&Order{Title: "outer"}).Error
			}), name)
			var titles []string
			require.NoError(t, db.Model(&Order{}).Order("title").Pluck("title", &titles).Error, name)
			require.Equal(t, []string{"after", "anvil", "outer"}, titles, name)
		}
	})
}

// A goroutine that outlives its test is told which one that was.
func TestStatementAfterTheEnd(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		var env *tenancytest.Env
		var ctx context.Context
		record("TestForgetful", func(r *recorder) {
			env = k.Env(r)
			ctx = env.Tenant("acme")
			require.NoError(t, env.DB.WithContext(ctx).Create(&Order{Title: "anvil"}).Error)
		}).passes(t)
		for _, c := range []context.Context{ctx, tenant.Ctx(context.Background(), "acme"), tenant.Ctx(context.Background(), "new")} {
			require.ErrorContains(t, env.DB.WithContext(c).First(&Order{}).Error, "test TestForgetful has ended")
		}
		require.ErrorContains(t, env.DB.WithContext(ctx).Create(&Order{}).Error, "test TestForgetful has ended")
		require.ErrorContains(t, env.DB.WithContext(ctx).Exec("DELETE FROM orders").Error, "test TestForgetful has ended")
		require.ErrorContains(t, env.DB.Create(&Plan{}).Error, "test TestForgetful has ended")
		require.Error(t, env.DB.WithContext(ctx).Begin().Error)
		_, err := env.Resolve(ctx, "acme")
		require.ErrorContains(t, err, "test TestForgetful has ended")
		require.ErrorContains(t, context.Cause(ctx), "test TestForgetful has ended")
	})
}

// A transaction and rows that a test leaves open don't hang it, and are undone.
func TestLeftOpen(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		for range 3 {
			record("TestLeftOpen", func(r *recorder) {
				env := k.Env(r)
				acme, bravo := env.Clone("acme"), env.Tenant("bravo")
				require.NoError(t, env.DB.WithContext(acme).Begin().Create(&Order{Title: "anvil"}).Error)
				require.NoError(t, env.DB.WithContext(bravo).Create(&Order{Title: "anvil"}).Error)
				rows, err := env.DB.WithContext(bravo).Model(&Order{}).Rows()
				require.NoError(t, err)
				require.True(t, rows.Next())
			}).passes(t)
		}
	})
}

// What can't be is said, by the test's end at the latest.
func TestMisuse(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		fails := func(want string, f func(env *tenancytest.Env)) {
			t.Helper()
			r := record("TestMisuse", func(r *recorder) { f(k.Env(r)) })
			require.True(t, r.failed)
			require.Contains(t, r.said(), want)
		}
		fails("invalid tenant id", func(env *tenancytest.Env) { env.Tenant("a/b") })
		fails(`call Env.Clone("x") first`, func(env *tenancytest.Env) { env.DSN("x") })

		env := k.Env(t)
		err := env.DB.WithContext(tenant.Ctx(t.Context(), "nobody")).First(&Order{}).Error
		require.ErrorIs(t, err, tenancy.ErrTenantNotFound)
		require.ErrorContains(t, err, `call Env.Tenant("nobody") first`)
		require.ErrorIs(t, env.DB.First(&Order{}).Error, tenancy.ErrNoTenant)
	})
}

// An application that opens its own db has the same databases.
func TestOwnDB(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b})
		env := k.Env(t, tenancytest.CloneMain())
		db, err := gorm.Open(env.Dialector(), quiet())
		require.NoError(t, err)
		p := tenancy.New(tenancy.Config{Resolver: env, Engine: env.Engine(), MainModels: []any{&Plan{}}})
		require.NoError(t, db.Use(p))
		t.Cleanup(func() { require.NoError(t, p.Close(context.Background())) })
		ctx := env.Clone("acme")
		require.NoError(t, db.WithContext(ctx).Create(&Order{Title: "anvil"}).Error)
		require.NoError(t, db.Create(&Plan{Name: "gold"}).Error)
		require.Equal(t, 1, count(t, env.DB, ctx, &Order{}))
		require.Equal(t, 1, count(t, env.DB, ctx, &Plan{}))

		for dsn, table := range map[string]string{env.DSN("acme"): "orders", env.MainDSN(): "plans"} {
			c, err := env.Engine().Connector(dsn)
			require.NoError(t, err)
			raw := sql.OpenDB(c)
			defer raw.Close()
			var n int
			require.NoError(t, raw.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
			require.Equal(t, 1, n)
		}
	})
}

// Config.Plugin's settings reach each Env's plugin, and those of one test
// don't count in another.
func TestPluginSettings(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		k := newKit(t, tenancytest.Config{Backend: b, Plugin: func(c *tenancy.Config) {
			c.Pools.MaxPools = 7
			c.Recheck = time.Hour
		}})
		one, two := k.Env(t), k.Env(t)
		require.NotSame(t, one.Plugin, two.Plugin)
		require.Equal(t, 7, one.Plugin.Stats().MaxPools)
		one.Tenant("acme")
		require.ErrorIs(t, two.DB.WithContext(tenant.Ctx(t.Context(), "acme")).First(&Order{}).Error, tenancy.ErrTenantNotFound)
	})
}

// The tenants' schema has the version that the Migrator has brought it to.
func TestSchemaVersion(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		for min, want := range map[int64]error{7: nil, 8: tenancy.ErrTenantBehind} {
			k := newKit(t, tenancytest.Config{Backend: b, Plugin: func(c *tenancy.Config) { c.Schema.Min = min },
				Migrator: migrate.Func(7, func(ctx context.Context, db *sql.DB) error { return nil })})
			env := k.Env(t)
			require.ErrorIs(t, env.DB.WithContext(env.Tenant("acme")).Exec("SELECT 1").Error, want)
		}
	})
}

// A template is built once for a fingerprint, whoever asks; without one, for
// each run.
func TestTemplateReuse(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		var built atomic.Int32
		m := func(version int64) migrate.Migrator {
			return migrate.Func(version, func(ctx context.Context, db *sql.DB) error {
				built.Add(1)
				_, err := db.ExecContext(ctx, "CREATE TABLE orders (id integer primary key, title text)")
				return err
			})
		}
		unique := rand.Text() // the server may have been tested on before
		use := func(version int64, fingerprint string) {
			t.Helper()
			if fingerprint != "" {
				fingerprint += unique
			}
			k := newKit(t, tenancytest.Config{Backend: b, Migrator: m(version), Fingerprint: fingerprint})
			record("use", func(r *recorder) {
				env := k.Env(r)
				require.NoError(t, env.DB.WithContext(env.Tenant("acme")).Exec("SELECT title FROM orders").Error)
			}).passes(t)
			require.NoError(t, k.Close())
		}
		use(1, "")
		use(1, "")
		require.EqualValues(t, 2, built.Load(), "what may have changed is built anew")
		use(1, "x")
		use(1, "x")
		require.EqualValues(t, 3, built.Load())
		use(2, "x")
		use(1, "y")
		require.EqualValues(t, 5, built.Load())
	})
}

// A migration that fails leaves no template, and the tests say why.
func TestTemplateFails(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b tenancytest.Backend) {
		broken := true
		m := migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
			if _, err := db.ExecContext(ctx, "CREATE TABLE orders (id integer primary key)"); err != nil || !broken {
				return err
			}
			_, err := db.ExecContext(ctx, "CREATE NONSENSE")
			return err
		})
		unique := rand.Text() // the server may have been tested on before
		use := func() *recorder {
			k := newKit(t, tenancytest.Config{Backend: b, Migrator: m, Fingerprint: unique})
			return record("use", func(r *recorder) { k.Env(r).Tenant("acme") })
		}
		r := use()
		require.True(t, r.failed)
		require.Contains(t, r.said(), "the tenant template")
		require.Contains(t, r.said(), "NONSENSE")
		broken = false
		use().passes(t)

		k := newKit(t, tenancytest.Config{Backend: b, Migrator: tenancytest.AutoMigrate(&Badly{})})
		r = record("use", func(r *recorder) { k.Env(r) })
		require.True(t, r.failed)
		require.Contains(t, r.said(), `tag that field `+"`"+`gorm:"constraint:-"`)
	})
}

// Badly makes the table of a main model in a tenant's database.
type Badly struct {
	ID     uint
	PlanID uint
	Plan   Plan
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]tenancytest.Config{
		"Config.Backend is not set":  {},
		"Config.Migrator is not set": {Backend: testsqlite.Backend{Dir: t.TempDir()}},
	} {
		r := record("TestBadConfig", func(r *recorder) { tenancytest.New(cfg).Env(r) })
		require.True(t, r.failed)
		require.Contains(t, r.said(), want)
	}
	k := tenancytest.New(tenancytest.Config{Backend: nothing{}, Migrator: tenancytest.AutoMigrate()})
	r := record("TestNothing", func(r *recorder) { k.Env(r) })
	require.True(t, r.skipped && !r.failed)
	require.True(t, strings.Contains(r.said(), "install something"), r.said())
}

// nothing is a Backend without a server.
type nothing struct{}

func (nothing) Open(context.Context) (tenancytest.Server, error) {
	return nil, fmt.Errorf("%w: install something", tenancytest.ErrNoServer)
}
