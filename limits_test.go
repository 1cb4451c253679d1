package tenancy_test

import (
	"context"
	"database/sql"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

func TestBadLimits(t *testing.T) {
	for field, limits := range map[string]tenancy.Limits{
		"MaxPools":          {MaxPools: -1},
		"MaxConnsPerTenant": {MaxConnsPerTenant: -1},
		"MaxConnsPerServer": {MaxConnsPerServer: -1},
		`Servers["db2"]`:    {Servers: map[string]int{"db1": 1, "db2": 0}},
		"IdleTimeout":       {IdleTimeout: -1},
		"ConnMaxIdleTime":   {ConnMaxIdleTime: -1},
		"ConnMaxLifetime":   {ConnMaxLifetime: -1},
		"ConnectTimeout":    {ConnectTimeout: -1},
		"AcquireTimeout":    {AcquireTimeout: -1},
	} {
		db, err := gorm.Open(nil, &gorm.Config{ConnPool: noPool{}})
		require.NoError(t, err)
		require.ErrorContains(t, db.Use(tenancy.New(tenancy.Config{Resolver: tenancy.Static{}, Pools: limits})), "tenancy.Config.Pools."+field)
	}
}

func TestServersOfDatabases(t *testing.T) {
	var e *env
	e = openSQLite(t, withConfig(func(c *tenancy.Config) {
		c.Pools.Servers = map[string]int{"eu": 3}
		c.Resolver = tenancy.ResolverFunc(func(ctx context.Context, id string) (tenancy.Database, error) {
			d, err := e.static.Resolve(ctx, id)
			if id == idA {
				d.Server = "eu"
			}
			return d, err
		})
	}))
	for _, id := range []string{idA, idB} {
		require.NoError(t, e.in(id).First(&Order{}).Error)
	}
	s := e.plugin.Stats().Servers
	require.Len(t, s, 2)
	require.Equal(t, []string{"", "eu"}, []string{s[0].Server, s[1].Server}, "bravo's is not known")
	require.Equal(t, []int{256, 3}, []int{s[0].MaxConns, s[1].MaxConns}, "SQLite has a default of its own")
	for _, server := range s {
		require.Equal(t, []int{1, 1, 1}, []int{server.Pools, server.Conns, server.Idle})
		require.EqualValues(t, 1, server.Dials)
		require.True(t, server.Approximate)
	}
	top := e.plugin.TopTenants(5)
	require.Len(t, top, 2)
	require.Equal(t, tenancy.TenantStats{Tenant: idA, Server: "eu", MaxConns: 4, Conns: 1, Idle: 1}, top[0])
	require.Len(t, e.plugin.TopTenants(1), 1)
	require.Empty(t, e.plugin.TopTenants(-1))
}

// Handles of OpenDB are paid for from the same budget.
func TestOpenDBSharesTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, plugin := sweepLab(t, tenancy.Limits{MaxConnsPerServer: 2, AcquireTimeout: time.Second})
		own, err := plugin.OpenDB(t.Context(), "a-1")
		require.NoError(t, err)
		one, err := own.Conn(t.Context())
		require.NoError(t, err)
		two, err := own.Conn(t.Context())
		require.NoError(t, err)
		err = db.WithContext(ctxOf("a-2")).Exec("x").Error
		require.ErrorIs(t, err, tenancy.ErrPoolExhausted)
		require.ErrorContains(t, err, "2 connections to server a are all in use")

		waits := make(chan error, 1)
		go func() {
			_, err := own.Conn(context.Background())
			waits <- err
		}()
		synctest.Wait()
		require.NoError(t, own.Close())
		require.ErrorContains(t, <-waits, "retired", "closed with a caller inside")
		_, err = own.Conn(t.Context())
		require.Error(t, err)
		require.NoError(t, two.Close())
		require.NoError(t, db.WithContext(ctxOf("a-2")).Exec("x").Error)
		require.NoError(t, one.Close())
		require.Equal(t, 1, plugin.Stats().Servers[0].Conns)
		require.Equal(t, 1, plugin.Stats().Servers[0].Pools)
	})
}

// What waits longer than the tenant's limit allows is told so, through GORM.
func TestPoolExhausted(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withConfig(func(c *tenancy.Config) {
			c.Pools.MaxConnsPerTenant = 1
			c.Pools.AcquireTimeout = 50 * time.Millisecond
		}))
		tx := e.in(idA).Begin()
		require.NoError(t, tx.Error)
		for name, do := range map[string]func(db *gorm.DB) error{
			"find":   func(db *gorm.DB) error { return db.Find(&[]Order{}).Error },
			"create": func(db *gorm.DB) error { return db.Create(&Tag{}).Error },
			"begin":  func(db *gorm.DB) error { return db.Begin().Error },
			"exec":   func(db *gorm.DB) error { return db.Exec("SELECT 1").Error },
			"row":    func(db *gorm.DB) error { return db.Raw("SELECT 1").Row().Err() },
			"conn": func(db *gorm.DB) error {
				return tenancy.Conn(db.Statement.Context, db, func(*sql.Conn) error { return nil })
			},
		} {
			err := do(e.in(idA))
			require.ErrorIs(t, err, tenancy.ErrPoolExhausted, name)
			require.ErrorContains(t, err, "tenant acme", name)
			require.ErrorContains(t, err, "MaxConnsPerTenant", name)
		}
		require.NoError(t, e.in(idB).First(&Order{}).Error)
		require.NoError(t, tx.Commit().Error)
		require.NoError(t, e.in(idA).First(&Order{}).Error)
	})
}
