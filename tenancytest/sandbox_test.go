package tenancytest_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/testpg"
)

// onSandboxes is a Kit on a server of its own.
func onSandboxes(t *testing.T) (*pgtest.Cluster, *tenancytest.Kit) {
	t.Parallel()
	pg := pgtest.Start(t)
	return pg, newKit(t, tenancytest.Config{Backend: testpg.Backend{DSN: pg.DSN("postgres")}})
}

// Tests that come one after the other share their databases.
func TestSandboxesAreUsedAgain(t *testing.T) {
	pg, k := onSandboxes(t)
	for range 5 {
		record("TestX", func(r *recorder) {
			env := k.Env(r)
			a, b := env.Two()
			for _, ctx := range []context.Context{a, b} {
				require.NoError(t, env.DB.WithContext(ctx).Create(&Order{Title: "anvil"}).Error)
			}
			require.NoError(t, env.DB.Create(&Plan{Name: "gold"}).Error)
		}).passes(t)
	}
	require.Len(t, databases(t, pg), 3, "of main, of a and of b")
}

// A test that has databases while its parallel subtests want some is not waited
// for, and those that were many at once don't keep their connections.
func TestSandboxesNeverRunOut(t *testing.T) {
	pg, k := onSandboxes(t)
	const many = 25
	record("TestMany", func(r *recorder) {
		outer := k.Env(r)
		for i := range many {
			ctx := outer.Tenant(string(rune('a' + i)))
			require.NoError(t, outer.DB.WithContext(ctx).Create(&Order{Title: "anvil"}).Error)
		}
		record("TestMany/inner", func(r *recorder) {
			inner := k.Env(r)
			require.Zero(t, count(t, inner.DB, inner.Tenant("a"), &Order{}))
		}).passes(t)
	}).passes(t)
	require.Len(t, databases(t, pg), many+3)

	admin := pg.Admin(t)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'tenancytest_%'").Scan(&n))
		return n < many
	}, 10*time.Second, 10*time.Millisecond)
	record("TestAgain", func(r *recorder) {
		env := k.Env(r)
		for i := range many {
			require.Zero(t, count(t, env.DB, env.Tenant(string(rune('a'+i))), &Order{}))
		}
	}).passes(t)
}

// Parallel subtests that share an Env, and name the same tenant, share its one
// database.
func TestSameTenantAtTheSameTime(t *testing.T) {
	pg, k := onSandboxes(t)
	record("TestX", func(r *recorder) {
		env := k.Env(r)
		var wg sync.WaitGroup
		const many = 8
		for i := range many {
			wg.Go(func() {
				err := env.DB.WithContext(env.Tenant("acme")).Create(&Order{Title: fmt.Sprint(i)}).Error
				if err != nil {
					r.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, many, count(t, env.DB, env.Tenant("acme"), &Order{}))
	}).passes(t)
	require.Len(t, databases(t, pg), 2, "of main and of acme")
}

// What leads around a sandbox is refused.
func TestSandboxHasNoDSN(t *testing.T) {
	_, k := onSandboxes(t)
	for want, f := range map[string]func(*tenancytest.Env){
		`a DSN would lead around it: call Env.Clone("acme") instead`:       func(env *tenancytest.Env) { env.Tenant("acme"); env.DSN("acme") },
		`a DSN would lead around it: use kit.Env(t, tenancytest.CloneMain`: func(env *tenancytest.Env) { env.MainDSN() },
		`has a sandbox already; call Clone before Tenant`:                  func(env *tenancytest.Env) { env.Tenant("acme"); env.Clone("acme") },
	} {
		r := record("TestX", func(r *recorder) { f(k.Env(r)) })
		require.True(t, r.failed)
		require.Contains(t, r.said(), want)
		require.Contains(t, r.said(), "sandboxes are rolled back; to keep their databases, run it again with TENANCY_TEST_KEEP=1")
	}
}

// A sandbox whose connection breaks fails its test, and no later one.
func TestSandboxLosesItsConnection(t *testing.T) {
	pg, k := onSandboxes(t)
	for range 2 {
		r := record("TestX", func(r *recorder) {
			env := k.Env(r)
			db := env.DB.WithContext(env.Tenant("acme"))
			require.NoError(t, db.Create(&Order{Title: "anvil"}).Error)
			pg.Exec(t, "postgres", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname LIKE 'tenancytest_%'")
			require.Error(t, db.Create(&Order{Title: "rocket"}).Error)
		})
		require.True(t, r.failed)
		require.Contains(t, r.said(), "ending its sandbox")
		record("TestNext", func(r *recorder) {
			env := k.Env(r)
			require.Zero(t, count(t, env.DB, env.Tenant("acme"), &Order{}))
		}).passes(t)
	}
}

// A transaction that a test never ends is found, whoever began it.
func TestSandboxFindsLeaks(t *testing.T) {
	_, k := onSandboxes(t)
	var tx *sql.Tx
	for want, leak := range map[string]func(*tenancytest.Env){
		"tenant acme: ending its sandbox": func(env *tenancytest.Env) {
			require.NoError(t, env.DB.WithContext(env.Tenant("acme")).Begin().Create(&Order{Title: "anvil"}).Error)
		},
		"the main database: ending its sandbox": func(env *tenancytest.Env) {
			main, err := env.DB.DB()
			require.NoError(t, err)
			tx, err = main.BeginTx(context.Background(), nil)
			require.NoError(t, err)
		},
	} {
		r := record("TestX", func(r *recorder) { leak(k.Env(r)) })
		require.True(t, r.failed)
		require.Contains(t, r.said(), want)
		require.Contains(t, r.said(), "sandbox_test.go", "where it began")
	}
	require.Error(t, tx.Commit())
	record("TestNext", func(r *recorder) {
		env := k.Env(r)
		require.Zero(t, count(t, env.DB, env.Tenant("acme"), &Order{}))
	}).passes(t)
}
