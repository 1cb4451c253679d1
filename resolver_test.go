package tenancy_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/utils/tests"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

func TestStatic(t *testing.T) {
	s := tenancy.Static{"a": {DSN: "x"}}
	d, err := s.Resolve(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "x", d.DSN)
	_, err = s.Resolve(t.Context(), "A")
	require.ErrorIs(t, err, tenancy.ErrTenantNotFound)
	_, err = tenancy.Static(nil).Resolve(t.Context(), "a")
	require.ErrorIs(t, err, tenancy.ErrTenantNotFound)
}

func TestChain(t *testing.T) {
	asked := 0
	counting := tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) {
		asked++
		return tenancy.Database{DSN: "last"}, nil
	})
	gives := func(err error) tenancy.Resolver {
		return tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) {
			return tenancy.Database{}, err
		})
	}
	d, err := tenancy.Chain(tenancy.Static{}, gives(tenancy.ErrTenantNotFound), counting).Resolve(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "last", d.DSN)
	d, err = tenancy.Chain(tenancy.Static{"a": {DSN: "first"}}, counting).Resolve(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, "first", d.DSN)
	require.Equal(t, 1, asked)

	for _, stop := range []error{errBoom, tenancy.ErrTenantSuspended, context.DeadlineExceeded} {
		_, err := tenancy.Chain(gives(stop), counting).Resolve(t.Context(), "a")
		require.ErrorIs(t, err, stop)
	}
	require.Equal(t, 1, asked, "only ErrTenantNotFound goes on")
	_, err = tenancy.Chain().Resolve(t.Context(), "a")
	require.ErrorIs(t, err, tenancy.ErrTenantNotFound)
}

// A resolver's own errors, and Databases that can't be used.
func TestResolverErrors(t *testing.T) {
	const secret = "hunter2"
	for name, tc := range map[string]struct {
		give    tenancy.Database
		err     error
		want    error
		mention string
	}{
		"not found": {err: errors.Join(errBoom, tenancy.ErrTenantNotFound), want: tenancy.ErrTenantNotFound},
		"suspended": {err: tenancy.ErrTenantSuspended, want: tenancy.ErrTenantSuspended},
		"down":      {err: errBoom, want: tenancy.ErrUnavailable, mention: "boom"},
		"zero":      {want: tenancy.ErrUnavailable, mention: "neither a DSN nor a Connector"},
		"both": {give: tenancy.Database{DSN: "postgres://u:" + secret + "@h/d", Connector: noConnector{}},
			want: tenancy.ErrUnavailable, mention: "a DSN and a Connector"},
		"negative":     {give: tenancy.Database{Connector: noConnector{}, MaxConns: -1}, want: tenancy.ErrUnavailable, mention: "MaxConns"},
		"bad URL":      {give: tenancy.Database{DSN: "postgres://u:" + secret + "@h:notaport/d"}, want: tenancy.ErrUnavailable},
		"bad setting":  {give: tenancy.Database{DSN: "host=h password=" + secret + " port=x"}, want: tenancy.ErrUnavailable},
		"bad escape":   {give: tenancy.Database{DSN: "postgres://u:" + secret + "%zz@h/d"}, want: tenancy.ErrUnavailable},
		"unreachable":  {give: tenancy.Database{DSN: "postgres://u:" + secret + "@127.0.0.1:1/d?sslmode=disable"}},
		"bad key word": {give: tenancy.Database{DSN: "host=127.0.0.1 port=1 dbname=d user=u sslmode=disable password='" + secret}},
	} {
		t.Run(name, func(t *testing.T) {
			var events []tenancy.Event
			var mu sync.Mutex
			plugin := tenancy.New(tenancy.Config{
				Engine: tenancypg.Engine{},
				Resolver: tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) {
					return tc.give, tc.err
				}),
				Observer: tenancy.ObserverFunc(func(e tenancy.Event) {
					mu.Lock()
					defer mu.Unlock()
					events = append(events, e)
				}),
			})
			e := openSQLite(t)
			db, err := gorm.Open(pgOn(e), &gorm.Config{Logger: logger.Discard})
			require.NoError(t, err)
			require.NoError(t, db.Use(plugin))
			var orders []Order
			err = db.WithContext(e.ctx(idA)).Find(&orders).Error
			require.Error(t, err)
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
			}
			if tc.err != nil {
				require.ErrorIs(t, err, tc.err, "the resolver's own error can be seen")
			}
			require.ErrorContains(t, err, tc.mention)
			require.NotContains(t, err.Error(), secret)
			require.NoError(t, plugin.Close(t.Context()))
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				if e.Err != nil {
					require.NotContains(t, e.Err.Error(), secret)
				}
			}
		})
	}
}

// pgOn returns a dialector that claims to be PostgreSQL's.
func pgOn(e *env) gorm.Dialector { return posing{sqlite.Dialector{Conn: e.raw[mainName]}} }

type posing struct{ sqlite.Dialector }

func (posing) Name() string { return "postgres" }

type noConnector struct{}

func (noConnector) Connect(context.Context) (driver.Conn, error) { return nil, errBoom }
func (noConnector) Driver() driver.Driver                        { return nil }

// A Resolver that reads main models through the very db that it serves.
func TestResolverOverSameDB(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		var e *env
		asked := 0
		e = open(withConfig(func(c *tenancy.Config) {
			c.Resolver = tenancy.ResolverFunc(func(ctx context.Context, id string) (tenancy.Database, error) {
				asked++
				var plan Plan
				if err := e.db.WithContext(ctx).First(&plan).Error; err != nil {
					return tenancy.Database{}, err
				}
				var name string // raw: the ctx alone decides
				if err := e.db.WithContext(ctx).Raw("SELECT name FROM customers").Scan(&name).Error; err != nil {
					return tenancy.Database{}, err
				}
				if plan.Name != "plan of main" || name != "customer of main" {
					return tenancy.Database{}, errBoom
				}
				return e.static.Resolve(ctx, id)
			})
		}))
		var c Customer
		require.NoError(t, e.in(idA).First(&c).Error)
		require.Equal(t, "customer of acme", c.Name)
		require.NoError(t, e.in(idB).Transaction(func(tx *gorm.DB) error { return tx.First(&c, 1).Error }))
		require.Equal(t, 2, asked)
	})
}

// watcher is a Resolver whose Watch is a test's.
type watcher struct {
	tenancy.Resolver
	watch func(ctx context.Context, changed func(string)) error
}

func (w watcher) Watch(ctx context.Context, changed func(string)) error { return w.watch(ctx, changed) }

// connectors resolves every id to a database that is never dialled.
func connectors(asked func(id string)) tenancy.Resolver {
	return tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
		asked(id)
		return tenancy.Database{Connector: noConnector{}}, nil
	})
}

// bubbleDB is a db with the plugin in a synctest bubble. Statements fail with
// errBoom, as there is nothing to connect to.
func bubbleDB(t *testing.T, cfg tenancy.Config) (db *gorm.DB, plugin *tenancy.Plugin) {
	t.Helper()
	db, err := gorm.Open(tests.DummyDialector{}, &gorm.Config{ConnPool: noPool{}, Logger: logger.Discard})
	require.NoError(t, err)
	plugin = tenancy.New(cfg)
	require.NoError(t, db.Use(plugin))
	t.Cleanup(func() {
		if err := plugin.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db, plugin
}

type noPool struct{ gorm.ConnPool }

func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]int{}
		news := make(chan string)
		quit := make(chan func() error)
		db, plugin := bubbleDB(t, tenancy.Config{
			Recheck: time.Hour,
			Resolver: watcher{connectors(func(id string) {
				mu.Lock()
				defer mu.Unlock()
				asked[id]++
			}), func(ctx context.Context, changed func(string)) error {
				for {
					select {
					case id := <-news:
						changed(id)
					case end := <-quit:
						return end()
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}},
		})
		use := func(ids ...string) {
			for _, id := range ids {
				require.ErrorIs(t, db.WithContext(ctxOf(id)).Exec("x").Error, errBoom)
			}
			synctest.Wait()
		}
		count := func(id string) int {
			mu.Lock()
			defer mu.Unlock()
			return asked[id]
		}
		use("a", "b")
		news <- "a"
		news <- "unknown"
		synctest.Wait()
		require.Equal(t, 1, plugin.Stats().Pools)
		require.EqualValues(t, 1, plugin.Stats().Evicted[tenancy.CauseChanged])
		use("a", "b", "b")
		require.Equal(t, 2, count("a"))
		require.Equal(t, 1, count("b"))

		for i, end := range []func() error{
			func() error { return nil },
			func() error { return errBoom },
			func() error { panic("ouch") },
		} {
			began := time.Now()
			quit <- end
			use("b")
			require.Equal(t, 1+i, count("b"), "nothing happens before the pause has passed")
			news <- "unknown" // taken by the next Watch
			synctest.Wait()
			require.GreaterOrEqual(t, time.Since(began), time.Second)
			require.LessOrEqual(t, time.Since(began), 30*time.Second)
			use("b", "b")
			require.Equal(t, 2+i, count("b"), "resolved again, once")
		}
	})
}

// In a chain every Watcher is heard; when one ends or panics all start again.
func TestWatcherChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type call struct {
			changed func(string)
			end     chan func() error
		}
		calls := [2]chan call{make(chan call, 1), make(chan call, 1)}
		link := func(i int, id string) tenancy.Resolver {
			return watcher{tenancy.Static{id: {Connector: &unreachable{id}}}, func(ctx context.Context, changed func(string)) error {
				c := call{changed, make(chan func() error)}
				calls[i] <- c
				select {
				case end := <-c.end:
					return end()
				case <-ctx.Done():
					return ctx.Err()
				}
			}}
		}
		db, plugin := bubbleDB(t, tenancy.Config{
			Resolver: tenancy.Chain(link(0, "a"), tenancy.Static{"c": {Connector: &unreachable{"c"}}}, link(1, "b")),
		})
		for _, id := range []string{"a", "b", "c"} {
			require.ErrorIs(t, db.WithContext(ctxOf(id)).Exec("x").Error, errBoom)
		}
		for _, end := range []func() error{
			func() error { return nil },
			func() error { panic("ouch") },
		} {
			first, second := <-calls[0], <-calls[1]
			first.changed("a")
			second.changed("b")
			require.Equal(t, 1, plugin.Stats().Pools)
			first.end <- end // ends the second too
			for _, id := range []string{"a", "b"} {
				require.ErrorIs(t, db.WithContext(ctxOf(id)).Exec("x").Error, errBoom)
			}
		}
		<-calls[0]
		<-calls[1]
	})
}

type unreachable struct{ id string }

func (*unreachable) Connect(context.Context) (driver.Conn, error) { return nil, errBoom }
func (*unreachable) Driver() driver.Driver                        { return nil }

// A chain in which nobody watches is quiet.
func TestChainWithoutWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := 0
		_, _ = bubbleDB(t, tenancy.Config{
			Resolver: tenancy.Chain(tenancy.Static{}, tenancy.Chain(tenancy.Static{})),
			Observer: tenancy.ObserverFunc(func(e tenancy.Event) {
				if e.Kind == tenancy.EventFailed {
					failed++
				}
			}),
		})
		time.Sleep(time.Hour) // the bubble's clock
		require.Zero(t, failed)
	})
}

// hanging is a connector to a server that does not answer until hang is closed.
type hanging struct {
	unreachable
	hang chan struct{}
}

func (h *hanging) Connect(context.Context) (driver.Conn, error) {
	<-h.hang
	return nil, errBoom
}
