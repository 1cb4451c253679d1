package tenancy_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

func TestEach(t *testing.T) {
	e := openSQLite(t)
	ctx := context.Background()
	mark := func(ctx context.Context, id string, db *gorm.DB) error {
		return db.Model(&Tag{}).Where("1 = 1").Update("name", "tag of "+id+" seen").Error
	}
	require.NoError(t, tenancy.Each(ctx, e.db, ids(idA, idB), tenancy.EachOptions{}, mark))
	require.Equal(t, []string{"tag of acme seen"}, e.dump(idA)["tags"])
	require.Equal(t, []string{"tag of bravo seen"}, e.dump(idB)["tags"])
	require.Equal(t, []string{"tag of main"}, e.dump(mainName)["tags"])

	var each *tenancy.EachError
	err := tenancy.Each(ctx, e.db, ids("nobody", "x/y", idB), tenancy.EachOptions{}, mark)
	require.ErrorAs(t, err, &each)
	require.Equal(t, []string{idB}, each.Done)
	require.Len(t, each.Failed, 2)
	require.ErrorIs(t, err, tenancy.ErrTenantNotFound)
	require.ErrorIs(t, err, tenancy.ErrInvalidTenant)
	require.ErrorContains(t, err, "1 tenants done, 2 failed")

	err = tenancy.Each(ctx, e.db, ids("nobody", idB), tenancy.EachOptions{StopOnError: true}, mark)
	require.ErrorAs(t, err, &each)
	require.Empty(t, each.Done)

	err = tenancy.Each(ctx, e.db, ids(idA, "!", idB), tenancy.EachOptions{}, mark)
	require.ErrorAs(t, err, &each)
	require.ErrorIs(t, err, errBoom)
	require.Equal(t, []string{idA}, each.Done)

	cancelled, cancel := context.WithCancel(ctx)
	err = tenancy.Each(cancelled, e.db, ids(idA, idB), tenancy.EachOptions{}, func(context.Context, string, *gorm.DB) error {
		cancel()
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorAs(t, err, &each)
	require.Equal(t, []string{idA}, each.Done)
}

// A sweep over many tenants pushes out none that is in use.
func TestEachLeavesTheWorkingSet(t *testing.T) {
	all := make([]string, 10)
	for i := range all {
		all[i] = fmt.Sprintf("tenant-%d", i)
	}
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withTenants(all...), withConfig(func(c *tenancy.Config) { c.Pools.MaxPools = 2 }))
		require.NoError(t, e.in(all[3]).First(&Order{}).Error)
		require.NoError(t, e.in(all[5]).First(&Order{}).Error)
		before := e.plugin.Stats()
		for _, opt := range []tenancy.EachOptions{{}, {Parallel: 4, PerServer: 3}} {
			err := tenancy.Each(t.Context(), e.db, ids(all...), opt, func(ctx context.Context, id string, db *gorm.DB) error {
				var o Order
				if err := db.First(&o).Error; err != nil || !strings.HasSuffix(o.Title, " of "+id) {
					return fmt.Errorf("read %q: %w", o.Title, err)
				}
				return db.Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "swept " + id}).Error })
			})
			require.NoError(t, err)
		}
		for _, id := range all {
			require.Equal(t, []string{"tag of " + id, "swept " + id, "swept " + id}, e.dump(id)["tags"])
		}
		s := e.plugin.Stats()
		require.Equal(t, 2, s.Pools)
		require.Zero(t, s.InUse)
		require.Equal(t, map[tenancy.Cause]uint64{tenancy.CauseSwept: 16}, s.Evicted)
		require.NoError(t, e.in(all[3]).First(&Order{}).Error)
		require.NoError(t, e.in(all[5]).First(&Order{}).Error)
		require.Equal(t, before.Opened+16, e.plugin.Stats().Opened, "both were open still")
	})
}

// sweepLab has tenants "server/number" on a database that does nothing.
func sweepLab(t *testing.T, limits tenancy.Limits) (*gorm.DB, *tenancy.Plugin) {
	return bubbleDB(t, tenancy.Config{
		Pools: limits,
		Resolver: tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
			server, _, ok := strings.Cut(id, "-")
			if !ok {
				return tenancy.Database{}, tenancy.ErrTenantNotFound
			}
			return tenancy.Database{Connector: &idle{id}, Server: server}, nil
		}),
	})
}

type idle struct{ id string }

func (c *idle) Connect(context.Context) (driver.Conn, error) { return idleConn{}, nil }
func (c *idle) Driver() driver.Driver                        { return nil }

type idleConn struct{ driver.Conn }

func (idleConn) Close() error { return nil }
func (idleConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

func numbered(server string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s-%d", server, i))
	}
	return all
}

func TestEachInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, plugin := sweepLab(t, tenancy.Limits{MaxConnsPerServer: 8})
		var (
			mu       sync.Mutex
			running  = map[string]int{}
			most     = map[string]int{}
			begun    []string
			progress []tenancy.EachProgress
		)
		count := func(server string, n int) {
			running[server] += n
			most[server] = max(most[server], running[server])
		}
		work := func(ctx context.Context, id string, db *gorm.DB) error {
			server, number, _ := strings.Cut(id, "-")
			mu.Lock()
			begun = append(begun, id)
			count(server, 1)
			count("all", 1)
			mu.Unlock()
			err := db.Exec("x").Error
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			count(server, -1)
			count("all", -1)
			if number == "7" {
				return errBoom
			}
			return err
		}
		// All of one server come first: the other is not left idle.
		all := slices.Concat(numbered("a", 20), numbered("b", 20), []string{"unknown"})
		began := time.Now()
		err := tenancy.Each(t.Context(), db, ids(all...), tenancy.EachOptions{
			Parallel: 4,
			Progress: func(p tenancy.EachProgress) { progress = append(progress, p) },
		}, work)
		var each *tenancy.EachError
		require.ErrorAs(t, err, &each)
		require.Len(t, each.Done, 38)
		require.Len(t, each.Failed, 3)
		require.NoError(t, each.Cause)
		require.ErrorIs(t, err, tenancy.ErrTenantNotFound)
		require.Equal(t, map[string]int{"a": 2, "b": 2, "all": 4}, most, "a quarter of the budget on each server")
		require.Equal(t, 10*time.Second, time.Since(began))
		inA := slices.DeleteFunc(slices.Clone(begun), func(id string) bool { return id[0] != 'a' })
		require.ElementsMatch(t, numbered("a", 20), inA)
		require.Len(t, progress, len(all))
		last := progress[len(all)-1]
		require.Equal(t, []int{38, 3}, []int{last.Done, last.Failed})
		require.Equal(t, time.Second, progress[10].Took)
		require.Zero(t, plugin.Stats().Pools)

		most = map[string]int{}
		require.Error(t, tenancy.Each(t.Context(), db, ids(all...), tenancy.EachOptions{Parallel: 100, PerServer: 7}, work))
		require.Equal(t, map[string]int{"a": 7, "b": 7, "all": 14}, most)
	})
}

func TestEachStopsInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, plugin := sweepLab(t, tenancy.Limits{MaxConnsPerServer: 100})
		var read int
		endless := func(yield func(string, error) bool) {
			for ; ; read++ {
				if !yield(fmt.Sprintf("a-%d", read), nil) {
					return
				}
			}
		}
		for name, opt := range map[string]tenancy.EachOptions{
			"ctx":        {Parallel: 3},
			"failure":    {Parallel: 3, StopOnError: true},
			"panic":      {Parallel: 3},
			"one panic":  {},
			"ids":        {Parallel: 3},
			"one failed": {StopOnError: true},
		} {
			read = 0
			ctx, cancel := context.WithCancel(t.Context())
			var source iter.Seq2[string, error] = endless
			if name == "ids" {
				source = ids("a-0", "a-1", "!", "a-2")
			}
			run := func() error {
				return tenancy.Each(ctx, db, source, opt, func(ctx context.Context, id string, _ *gorm.DB) error {
					time.Sleep(time.Second)
					if id != "a-5" {
						return nil
					}
					switch name {
					case "ctx":
						cancel()
						return nil
					case "panic", "one panic":
						panic("ouch")
					}
					return errBoom
				})
			}
			var each *tenancy.EachError
			switch name {
			case "ctx":
				err := run()
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorAs(t, err, &each)
				require.Subset(t, each.Done, numbered("a", 6))
				require.Less(t, len(each.Done), 10)
			case "failure", "one failed":
				err := run()
				require.ErrorIs(t, err, errBoom)
				require.ErrorAs(t, err, &each)
				require.Len(t, each.Failed, 1)
				require.Subset(t, each.Done, numbered("a", 5))
				require.Less(t, len(each.Done), 10)
				require.NoError(t, each.Cause)
			case "ids":
				err := run()
				require.ErrorIs(t, err, errBoom)
				require.ErrorAs(t, err, &each)
				require.ErrorIs(t, each.Cause, errBoom)
				require.Empty(t, each.Failed)
			default:
				func() {
					defer func() { require.Contains(t, fmt.Sprint(recover()), "ouch", name) }()
					_ = run()
				}()
			}
			require.Less(t, read, 100, "%s: ids are read as they are needed", name)
			cancel()
			synctest.Wait()
			s := plugin.Stats()
			require.Zero(t, s.Pools+s.InUse+s.Opening+s.Draining, name)
		}
	})
}

// A transient pool becomes one like the others when somebody else wants it.
func TestEachKeepsWhatOthersUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, plugin := sweepLab(t, tenancy.Limits{MaxConnsPerTenant: 3})
		limit := func() int { return plugin.TopTenants(1)[0].MaxConns }
		err := tenancy.Each(t.Context(), db, ids("a-1"), tenancy.EachOptions{}, func(ctx context.Context, id string, tx *gorm.DB) error {
			require.NoError(t, tx.Exec("x").Error)
			require.NoError(t, db.WithContext(ctx).Exec("x").Error)
			require.Equal(t, 2, limit())
			require.Zero(t, plugin.Stats().Pools)
			require.Equal(t, 1, plugin.Stats().Sweeping)
			require.NoError(t, db.WithContext(ctxOf("a-1")).Exec("x").Error)
			require.Equal(t, 3, limit())
			return nil
		})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 1, plugin.Stats().Pools)

		// Two sweeps at once share it, and the last one closes it.
		turn := func(inner func() error) error {
			return tenancy.Each(t.Context(), db, ids("a-2"), tenancy.EachOptions{}, func(context.Context, string, *gorm.DB) error { return inner() })
		}
		require.NoError(t, turn(func() error {
			err := turn(func() error { return nil })
			require.Zero(t, plugin.Stats().Evicted[tenancy.CauseSwept])
			return err
		}))
		synctest.Wait()
		require.EqualValues(t, 1, plugin.Stats().Evicted[tenancy.CauseSwept])

		// Evicted during its turn: the rest of the turn opens another.
		require.NoError(t, tenancy.Each(t.Context(), db, ids("a-3"), tenancy.EachOptions{}, func(_ context.Context, _ string, tx *gorm.DB) error {
			require.True(t, plugin.Evict("a-3"))
			return tx.Exec("x").Error
		}))
		synctest.Wait()
		require.Equal(t, 1, plugin.Stats().Pools)
		require.ErrorIs(t, turn(func() error { return errors.Join(errBoom) }), errBoom)
	})
}

func TestEachNeedsThePlugin(t *testing.T) {
	require.ErrorContains(t, tenancy.Each(t.Context(), &gorm.DB{Config: &gorm.Config{}}, ids("a"), tenancy.EachOptions{}, nil), "tenancy")
}

// A panic of Progress is passed on too, also for a tenant that can't be opened.
func TestEachPassesOnAPanicOfProgress(t *testing.T) {
	e := openSQLite(t)
	require.Panics(t, func() {
		_ = tenancy.Each(context.Background(), e.db, ids("nobody", idA), tenancy.EachOptions{
			Parallel: 2,
			Progress: func(tenancy.EachProgress) { panic("no") },
		}, func(context.Context, string, *gorm.DB) error { return nil })
	})
}

// A turn whose goroutine is ended, by t.FailNow for instance, has failed.
func TestEachNoticesGoexit(t *testing.T) {
	e := openSQLite(t)
	err := tenancy.Each(context.Background(), e.db, ids(idA, idB), tenancy.EachOptions{Parallel: 2},
		func(_ context.Context, id string, _ *gorm.DB) error {
			if id == idA {
				runtime.Goexit()
			}
			return nil
		})
	var each *tenancy.EachError
	require.ErrorAs(t, err, &each)
	require.Len(t, each.Failed, 1)
	require.Equal(t, idA, each.Failed[0].Tenant)
}

// A turn whose goroutine ends halts the sweep: no further turn begins, and what
// has not had its turn is not lost without a word.
func TestEachEndsWithGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := sweepLab(t, tenancy.Limits{})
		all := slices.Concat(numbered("a", 20), numbered("b", 20), numbered("c", 20))
		var running, peak, began atomic.Int64
		err := tenancy.Each(t.Context(), db, ids(all...), tenancy.EachOptions{Parallel: 2, PerServer: 4},
			func(_ context.Context, id string, _ *gorm.DB) error {
				began.Add(1)
				n := running.Add(1)
				defer running.Add(-1)
				for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
				}
				if id == "a-0" {
					runtime.Goexit()
				}
				time.Sleep(time.Second)
				return nil
			})
		var each *tenancy.EachError
		require.ErrorAs(t, err, &each)
		require.Error(t, each.Cause)
		require.LessOrEqual(t, peak.Load(), int64(2), "Parallel")
		require.LessOrEqual(t, began.Load(), int64(4))
	})
}
