package tenancy_test

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// hang is a Migrate that waits for the end of its ctx.
func hang(calls *atomic.Int32) func(context.Context, string) error {
	return func(ctx context.Context, _ string) error {
		calls.Add(1)
		<-ctx.Done()
		return ctx.Err()
	}
}

// A migration that hangs holds up its own tenant's callers only, and these no
// longer than a connection would.
func TestSchemaMigrateHangs(t *testing.T) {
	var calls atomic.Int32
	inVersions(t, map[string]int64{"a": 4, "b": 5}, func(_ *bubble, c *tenancy.Config) {
		c.Schema = tenancy.SchemaRange{Min: 5, Migrate: hang(&calls), MigrateTimeout: time.Minute}
		c.Pools.AcquireTimeout = 20 * time.Second // more than a Resolver has
	}, func(t *testing.T, b *bubble) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hasty, patient := b.later(ctx, "a"), b.later(t.Context(), "a")
		synctest.Wait()
		require.NoError(t, b.use(t.Context(), "b"))
		require.Zero(t, time.Since(began), "others don't notice")

		err := <-hasty
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "tenant a: its schema is being migrated")
		require.Equal(t, time.Second, time.Since(began))
		err = <-patient
		require.ErrorIs(t, err, tenancy.ErrUnavailable)
		require.ErrorContains(t, err, "its schema is being migrated; try again later")
		require.Equal(t, 20*time.Second, time.Since(began))
		require.ErrorContains(t, b.use(t.Context(), "a"), "is being migrated")
		require.Equal(t, 20*time.Second, time.Since(began), "who comes now does not wait")
		drain, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorContains(t, b.plugin.Drain(drain, "a"), "its schema is being migrated")
		next := b.later(t.Context(), "a") // a new opening, which waits for the same migration
		synctest.Wait()
		require.EqualValues(t, 1, calls.Load())

		err = <-next
		require.ErrorContains(t, err, "is being migrated")
		time.Sleep(time.Minute - time.Since(began))
		synctest.Wait()
		err = b.use(t.Context(), "a")
		require.ErrorIs(t, err, tenancy.ErrTenantBehind)
		require.ErrorContains(t, err, "longer than MigrateTimeout, which is 1m0s")
		require.EqualValues(t, 1, calls.Load())
	})
}

// Close ends a migration, and does not count it as a failure.
func TestSchemaCloseEndsMigrate(t *testing.T) {
	var calls atomic.Int32
	inVersions(t, map[string]int64{"a": 4}, func(_ *bubble, c *tenancy.Config) {
		c.Schema = tenancy.SchemaRange{Min: 5, Migrate: hang(&calls), Behind: tenancy.BehindIgnore}
	}, func(t *testing.T, b *bubble) {
		waiting := b.later(t.Context(), "a")
		synctest.Wait()
		began := time.Now()
		require.NoError(t, b.plugin.Close(t.Context()))
		require.Zero(t, time.Since(began))
		require.ErrorIs(t, <-waiting, tenancy.ErrClosed)
		require.EqualValues(t, 1, calls.Load())
		require.Empty(t, b.seen(tenancy.EventOpened, "a"))
	})
}

// A migration that fails is the tenant's failure alone. It is tried again, but
// not at once; in between the tenant is looked at as if there were none.
func TestSchemaMigrateFails(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error":   func() error { return errBoom },
		"panic":   func() error { panic(errBoom) },
		"goexit":  func() error { runtime.Goexit(); return nil },
		"no help": func() error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			inVersions(t, map[string]int64{"a": 4, "b": 5}, func(_ *bubble, c *tenancy.Config) {
				c.Schema = tenancy.SchemaRange{Min: 5, Migrate: func(context.Context, string) error {
					calls.Add(1)
					return fail()
				}}
			}, func(t *testing.T, b *bubble) {
				want := map[string]string{"error": "boom", "panic": "panicked: boom", "goexit": "ended its goroutine", "no help": "has not changed"}[name]
				fails := func() {
					t.Helper()
					err := b.use(t.Context(), "a")
					require.ErrorIs(t, err, tenancy.ErrTenantBehind)
					require.ErrorContains(t, err, want)
					require.ErrorContains(t, err, "version 4")
				}
				began := time.Now()
				for time.Since(began) < 4*time.Second {
					fails()
					require.NoError(t, b.use(t.Context(), "b"))
					time.Sleep(time.Second / 4)
				}
				require.EqualValues(t, 1, calls.Load())
				for time.Since(began) < 10*time.Minute {
					fails()
					time.Sleep(time.Second / 4)
				}
				require.Greater(t, calls.Load(), int32(10))
				require.Less(t, calls.Load(), int32(16), "5 s, 10 s, 20 s, 40 s, then each minute")

				before := calls.Load()
				b.plugin.Evict("a")
				fails()
				require.Equal(t, before+1, calls.Load(), "Evict forgives")
				b.set("a", 5) // by another process
				time.Sleep(time.Second)
				require.NoError(t, b.use(t.Context(), "a"))
				require.Equal(t, before+1, calls.Load())
			})
		})
	}
}

// Who serves tenants that are behind serves those whose migration fails too.
func TestSchemaMigrateFailsAndIsIgnored(t *testing.T) {
	inVersions(t, map[string]int64{"a": 4}, func(_ *bubble, c *tenancy.Config) {
		c.Schema = tenancy.SchemaRange{Min: 5, Behind: tenancy.BehindIgnore,
			Migrate: func(context.Context, string) error { return errBoom }}
	}, func(t *testing.T, b *bubble) {
		for range 3 {
			require.NoError(t, b.use(t.Context(), "a"))
		}
		behind := b.seen(tenancy.EventBehind, "a")
		require.Len(t, behind, 1)
		require.ErrorIs(t, behind[0].Err, errBoom)
	})
}

// A statement of the tenant inside of its migration would wait for itself.
func TestSchemaMigrateByAStatementOfTheTenant(t *testing.T) {
	inVersions(t, map[string]int64{"a": 4, "b": 5}, func(b *bubble, c *tenancy.Config) {
		c.Schema = tenancy.SchemaRange{Min: 5, Migrate: func(ctx context.Context, id string) error {
			return errors.Join(b.use(tenant.Ctx(ctx, "b"), "b"), b.use(tenant.Ctx(ctx, id), id))
		}}
	}, func(t *testing.T, b *bubble) {
		began := time.Now()
		err := b.use(t.Context(), "a")
		require.ErrorIs(t, err, tenancy.ErrTenantBehind)
		require.ErrorContains(t, err, "would wait for itself; use Plugin.OpenDB")
		require.Zero(t, time.Since(began))
		require.Len(t, b.seen(tenancy.EventOpened, "b"), 1, "others are open to it")
	})
}

// News that comes while the tenant is migrated, of the migration itself for
// instance, causes no second one.
func TestSchemaNewsWhileMigrating(t *testing.T) {
	var calls atomic.Int32
	var gate chan struct{}
	inVersions(t, map[string]int64{"a": 4}, func(b *bubble, c *tenancy.Config) {
		gate = make(chan struct{})
		c.Resolver = hearing{b.versions, b.news}
		c.Schema = tenancy.SchemaRange{Min: 5, Migrate: func(_ context.Context, id string) error {
			calls.Add(1)
			<-gate
			b.set(id, 5)
			b.news <- id
			return nil
		}}
	}, func(t *testing.T, b *bubble) {
		var callers []<-chan error
		for range 3 {
			callers = append(callers, b.later(t.Context(), "a"))
			synctest.Wait()
			b.news <- "a"
			synctest.Wait()
		}
		close(gate)
		for _, c := range callers {
			require.NoError(t, <-c)
		}
		synctest.Wait() // the last news may have retired the pool after its first use
		require.NoError(t, b.use(t.Context(), "a"))
		require.Equal(t, 1, b.plugin.Stats().Pools)
		require.EqualValues(t, 1, calls.Load())
	})
}

// A Current that hangs is said to be what is waited for, and a migration where
// it is asked after that.
func TestSchemaCurrentHangs(t *testing.T) {
	for _, hangs := range []int32{1, 2} {
		var asked atomic.Int32
		inVersions(t, nil, func(_ *bubble, c *tenancy.Config) {
			c.Pools.AcquireTimeout = 3 * time.Second
			c.Schema = tenancy.SchemaRange{
				Min:     5,
				Migrate: func(context.Context, string) error { return nil },
				Current: func(ctx context.Context, _ *sql.DB) (int64, error) {
					if asked.Add(1) == hangs {
						<-ctx.Done()
						return 0, ctx.Err()
					}
					return 4, nil
				},
			}
		}, func(t *testing.T, b *bubble) {
			began := time.Now()
			err := b.use(t.Context(), "a")
			require.ErrorIs(t, err, tenancy.ErrUnavailable)
			if hangs == 1 {
				require.ErrorContains(t, err, "the version of its schema")
				require.Equal(t, 10*time.Second, time.Since(began))
				return
			}
			require.ErrorContains(t, err, "is being migrated")
			require.Equal(t, 3*time.Second, time.Since(began))
			time.Sleep(10 * time.Second)
			require.ErrorContains(t, b.use(t.Context(), "a"), "has not changed that")
		})
	}
}
