package tenancy_test

import (
	"context"
	"database/sql/driver"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// What Database.Replicas must not say is found before anything is opened.
func TestReplicaConfig(t *testing.T) {
	ok := tenancy.Database{DSN: "r"}
	for want, replicas := range map[string][]tenancy.Database{
		"Replicas[0] has neither a DSN nor a Connector":      {{}},
		"Replicas[1] has a DSN and a Connector":              {ok, {DSN: "r", Connector: broken{}}},
		"Replicas[0].MaxConns is negative: -1":               {{DSN: "r", MaxConns: -1}},
		"Replicas[0] sets more than DSN or Connector":        {{DSN: "r", Version: "2"}},
		"Replicas[1] sets more than DSN or Connector, ":      {ok, {DSN: "r", Identity: right}},
		"Replicas[0] sets more than DSN or Connector, Serve": {{DSN: "r", Schema: 1}},
		"the rest is the primary's":                          {{DSN: "r", Replicas: []tenancy.Database{ok}}},
		"65 Replicas; 64 are the most":                       slices.Repeat([]tenancy.Database{ok}, 65),
	} {
		for name, resolver := range map[string]tenancy.Resolver{
			"static": tenancy.Static{idA: {DSN: "p", Replicas: replicas}},
			"asked": tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) {
				return tenancy.Database{DSN: "p", Replicas: replicas}, nil
			}),
		} {
			db, err := gorm.Open(openSQLite(t).db.Dialector, &gorm.Config{Logger: logger.Discard})
			require.NoError(t, err)
			plugin := tenancy.New(tenancy.Config{Resolver: resolver, Engine: tenancysqlite.Engine{}})
			if err = db.Use(plugin); name == "asked" {
				require.NoError(t, err)
				err = db.WithContext(openSQLite(t).ctx(idA)).First(&Order{}).Error
				require.ErrorIs(t, err, tenancy.ErrUnavailable)
			}
			require.ErrorContains(t, err, want, name)
			require.NoError(t, plugin.Close(t.Context()))
		}
	}
	db, err := gorm.Open(openSQLite(t).db.Dialector, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	require.ErrorContains(t, db.Use(tenancy.New(tenancy.Config{Resolver: tenancy.Static{
		idA: {Connector: broken{}, Replicas: []tenancy.Database{ok}}}})), "tenant acme has a DSN but Engine is not set")
}

// A replica must not be another tenant's database, be it primary or replica.
func TestReplicaOfAnother(t *testing.T) {
	for name, make := range map[string]func(a, b *tenancy.Database){
		"the other's primary": func(a, b *tenancy.Database) { a.Replicas[0].Connector = b.Connector },
		"the other's replica": func(a, b *tenancy.Database) { a.Replicas[0].Connector = b.Replicas[0].Connector },
		"its primary is the other's replica": func(a, b *tenancy.Database) {
			a.Connector = b.Replicas[0].Connector
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := openSQLite(t, withReplicas(1))
			a, b := e.static[idA], e.static[idB]
			make(&a, &b)
			plugin := tenancy.New(tenancy.Config{Resolver: tenancy.Static{idA: a, idB: b}})
			db, err := gorm.Open(e.db.Dialector, &gorm.Config{Logger: logger.Discard})
			require.NoError(t, err)
			require.ErrorContains(t, db.Use(plugin), "tenants acme and bravo have the same database")

			// A Resolver that is asked: whoever comes second is refused.
			plugin = tenancy.New(tenancy.Config{Resolver: tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
				return tenancy.Static{idA: a, idB: b}.Resolve(context.Background(), id)
			})})
			db, err = gorm.Open(e.db.Dialector, &gorm.Config{Logger: logger.Discard})
			require.NoError(t, err)
			require.NoError(t, db.Use(plugin))
			require.NoError(t, db.WithContext(e.ctx(idA)).First(&Order{}).Error)
			err = db.WithContext(e.ctx(idB)).First(&Order{}).Error
			require.ErrorContains(t, err, "its database is open for tenant acme")
			require.True(t, plugin.Evict(idA))
			require.NoError(t, db.WithContext(e.ctx(idB)).First(&Order{}).Error)
			require.NoError(t, plugin.Close(t.Context()))
		})
	}
	// Its own may repeat: an application with one server for now.
	e := openSQLite(t, withReplicas(1))
	a := e.static[idA]
	a.Replicas = []tenancy.Database{{Connector: a.Connector}, a.Replicas[0], a.Replicas[0]}
	e.static[idA] = a
	for range 20 {
		require.NoError(t, e.in(idA).First(&Order{}).Error)
	}
}

// A replica that says it is another's database, or a copy of another
// generation, is never read: not even the first time.
func TestReplicaIdentity(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for name, says := range map[string]tenancy.Identity{
			"nothing": {}, "another": {UID: "u-bravo", Generation: 3}, "older": {UID: "u-acme", Generation: 2}, "newer": {UID: "u-acme", Generation: 4},
		} {
			t.Run(name, func(t *testing.T) {
				var events eventLog
				asked := atomic.Int32{}
				var e *env
				e = open(withReplicas(1), withConfig(func(c *tenancy.Config) {
					c.Observer = &events
					c.Resolver = tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
						asked.Add(1)
						d := e.static[id]
						d.Identity = right
						return d, nil
					})
				}))
				e.identify(idA, right)
				if says != (tenancy.Identity{}) {
					e.identify(replicaOf(idA, 1), says)
				}
				for range 3 {
					var o Order
					require.NoError(t, e.in(idA).First(&o).Error)
					require.Equal(t, "order 1 of acme", o.Title)
				}
				require.EqualValues(t, 1, asked.Load(), "the primary is right, so the Resolver is")
				down := events.of(tenancy.EventReplicaDown)
				require.Len(t, down, 1)
				require.Equal(t, idA, down[0].Tenant)
				if name == "nothing" { // the env's connections can't tell; see Identity
					require.ErrorIs(t, down[0].Err, tenancy.ErrUnavailable)
					return
				}
				require.ErrorIs(t, down[0].Err, tenancy.ErrWrongDatabase)
				if name != "older" {
					return
				}

				// It lagged behind, and comes back by itself.
				e.identify(replicaOf(idA, 1), right)
				require.Eventually(t, func() bool {
					var o Order
					require.NoError(t, e.in(idA).First(&o).Error)
					return o.Title == "order 1 of acme-r1"
				}, 20*time.Second, 10*time.Millisecond)
				require.Len(t, events.of(tenancy.EventReplicaUp), 1)
			})
		}
	})
}

// Other replicas are another Database: the pool with the old ones goes.
func TestReplicasChange(t *testing.T) {
	e := openSQLite(t, withReplicas(2))
	replicas := e.static[idA].Replicas
	now := atomic.Pointer[tenancy.Database]{}
	now.Store(&tenancy.Database{Connector: e.static[idA].Connector})
	plugin := tenancy.New(tenancy.Config{Recheck: time.Nanosecond,
		Resolver: tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) { return *now.Load(), nil })})
	db, err := gorm.Open(e.db.Dialector, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	require.NoError(t, db.Use(plugin))
	for _, tc := range []struct {
		replicas []tenancy.Database
		want     string
	}{
		{nil, "acme"}, {replicas[:1], "acme-r1"}, {nil, "acme"}, {replicas[1:], "acme-r2"}, {replicas[:1], "acme-r1"},
	} {
		now.Store(&tenancy.Database{Connector: e.static[idA].Connector, Replicas: tc.replicas})
		require.Eventually(t, func() bool {
			var o Order
			require.NoError(t, db.WithContext(e.ctx(idA)).First(&o).Error)
			return o.Title == "order 1 of "+tc.want
		}, 20*time.Second, time.Millisecond, tc.want)
	}
	require.NoError(t, plugin.Close(t.Context()))
}

// Figures and events tell the primary from its replicas.
func TestReplicaStats(t *testing.T) {
	e := openSQLite(t, withReplicas(2), withRoundRobin())
	for range 4 {
		require.NoError(t, e.in(idA).First(&Order{}).Error)
	}
	require.NoError(t, e.in(idA).Create(&Tag{}).Error)
	s := e.plugin.Stats()
	require.Equal(t, 1, s.Pools)
	require.Equal(t, 3, s.Conns)
	require.EqualValues(t, 4, s.ReplicaReads)
	require.Zero(t, s.ReplicaFallbacks)
	servers := map[string]tenancy.ServerStats{}
	for _, s := range s.Servers {
		servers[s.Server] = s
	}
	require.Equal(t, 1, servers["acme-r2"].Replicas)
	require.Equal(t, 1, servers["acme-r2"].Conns)
	require.Equal(t, 0, servers[""].Replicas)
	require.Equal(t, 1, servers[""].Conns)
	var rows []string
	for _, row := range e.plugin.TopTenants(9) {
		require.Equal(t, idA, row.Tenant)
		require.Equal(t, row.Server != "", row.Replica)
		require.False(t, row.Down)
		rows = append(rows, row.Server)
	}
	require.Equal(t, []string{"", "acme-r1", "acme-r2"}, rows)

	// Drain and Close wait for the replicas' connections too.
	rowsOpen, err := e.in(idA).Model(&Order{}).Rows()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, e.plugin.Drain(ctx, idA), "1 connections are still in use")
	require.NoError(t, rowsOpen.Close())
	require.NoError(t, e.plugin.Drain(t.Context(), idA))
	require.Zero(t, e.plugin.Stats().Conns)
}

// OpenDB is the primary alone.
func TestReplicaOpenDB(t *testing.T) {
	e := openSQLite(t, withReplicas(1))
	db, err := e.plugin.OpenDB(t.Context(), idA)
	require.NoError(t, err)
	var title string
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT title FROM orders LIMIT 1").Scan(&title))
	require.Equal(t, "order 1 of acme", title)
	require.NoError(t, db.Close())
	require.Zero(t, e.plugin.Stats().Conns)
}

// Tenants' reads at once, with replicas that go and come back: nobody sees
// another's rows, and nothing is written to a replica.
func TestReplicaRace(t *testing.T) {
	e := openSQLite(t, withReplicas(2), withConfig(func(c *tenancy.Config) { c.Pools.MaxPools = 1 }))
	before := e.dumps(idA, idB)
	var wg sync.WaitGroup
	for i := range 8 {
		id := []string{idA, idB}[i%2]
		wg.Go(func() {
			for j := range 100 {
				var o Order
				if err := e.in(id).First(&o).Error; err != nil {
					t.Error(err)
					return
				}
				switch o.Title {
				case "order 1 of " + id, "order 1 of " + replicaOf(id, 1), "order 1 of " + replicaOf(id, 2):
				default:
					t.Errorf("%s read %q", id, o.Title)
				}
				if j%10 == 0 {
					if err := e.in(id).Exec("UPDATE orders SET deleted = NULL").Error; err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, before, e.dumps(idA, idB))
}

// eventLog is an Observer that remembers.
type eventLog struct {
	mu  sync.Mutex
	all []tenancy.Event
}

func (l *eventLog) Observe(e tenancy.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

func (l *eventLog) of(kind tenancy.EventKind) (found []tenancy.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// broken is a Connector that is never asked.
type broken struct{}

func (broken) Connect(context.Context) (driver.Conn, error) { return nil, errBoom }
func (broken) Driver() driver.Driver                        { return nil }
