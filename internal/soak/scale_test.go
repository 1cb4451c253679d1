package soak

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// footprint is what a process has at a quiet moment.
type footprint struct {
	heap       int64
	goroutines int
}

func measure() footprint {
	runtime.GC()
	runtime.GC() // what the first one's finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{int64(m.HeapAlloc), runtime.NumGoroutine()}
}

// What may stay. Measured elsewhere: a pool has 4 KB, one connection of pgx 75,
// and a sql.DB one goroutine, two with connections. The rest is allowed for
// what GORM, pgx and the runtime keep for themselves.
const (
	heapPerPool, heapPerConn   = 16 << 10, 150 << 10
	heapSpare, goroutinesSpare = 2 << 20, 20
	goroutinesPerPool, perConn = 2, 1
)

// bounded checks that what is kept goes with the limits, not with how many
// tenants there were.
func (a *app) bounded(before footprint, maxPools, budget int) {
	a.t.Helper()
	eventually(a.t, "retired pools are gone", func() bool { return a.plugin.Stats().Draining == 0 })
	s := a.plugin.Stats()
	now := measure()
	heap, goroutines := now.heap-before.heap, now.goroutines-before.goroutines
	a.t.Logf("%d pools (%d opened), %d connections: %d KB, %d goroutines", s.Pools, s.Opened, s.Conns, heap>>10, goroutines)
	require.LessOrEqual(a.t, s.Pools, maxPools)
	require.Zero(a.t, s.InUse)
	require.LessOrEqual(a.t, s.Conns, budget)
	require.LessOrEqual(a.t, heap, int64(maxPools*heapPerPool+budget*heapPerConn+heapSpare))
	require.LessOrEqual(a.t, goroutines, maxPools*goroutinesPerPool+budget*perConn+goroutinesSpare)
}

// zipf runs do with ids of n, some of them much more often than others.
func zipf(workers, times, n int, do func(id int) error) error {
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			z := rand.NewZipf(rand.New(rand.NewPCG(1, uint64(w))), 1.1, 10, uint64(n-1))
			for i := 0; i < times/workers && failed.Load() == nil; i++ {
				if err := do(int(z.Uint64())); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// manyTenants: 5,000 ids over 200 databases, of which some may have a pool and
// few a connection. What a pool keeps of a connection that was taken from it
// would show here. Each id logs in under its own name, so that the server says
// whose connection a statement came on.
func (f *fleet) manyTenants(t *testing.T) {
	const ids, databases, maxPools, budget, workers = 5000, 200, 150, 8, 12
	customerOf := func(i int) *customer { return f.tenants[i%databases] }
	a := f.open(t, tenancy.Limits{MaxPools: maxPools, MaxConnsPerServer: budget, AcquireTimeout: patience}, func(c *tenancy.Config) {
		c.Resolver = tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
			var i int
			if _, err := fmt.Sscanf(id, "login-%d", &i); err != nil || i >= ids {
				return tenancy.Database{}, tenancy.ErrTenantNotFound
			}
			dsn, err := url.Parse(customerOf(i).cluster.DSN(customerOf(i).database))
			if err != nil {
				return tenancy.Database{}, err
			}
			q := dsn.Query()
			q.Set("application_name", id)
			dsn.RawQuery = q.Encode()
			return tenancy.Database{DSN: dsn.String()}, nil
		})
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	work := func(i int) error {
		id, c := fmt.Sprintf("login-%d", i), customerOf(i)
		db := a.db.WithContext(tenant.Ctx(ctx, id))
		var got struct{ Tenant, Database, Login string }
		err := db.Raw("SELECT tenant, current_database() AS database, current_setting('application_name') AS login FROM signs").Scan(&got).Error
		if err != nil {
			return err
		}
		if got.Tenant != c.id || got.Database != c.database || got.Login != id {
			return fmt.Errorf("%s of %s: %+v", id, c.id, got)
		}
		if err := db.Create(&Item{Tenant: c.id, Note: kept}).Error; err != nil {
			return err
		}
		c.items.Add(1)
		return nil
	}
	require.NoError(t, work(0))
	require.NoError(t, a.plugin.Drain(ctx, "login-0"))
	before := measure()
	for range 2 {
		require.NoError(t, zipf(workers, 1000, ids, work))
		a.bounded(before, maxPools, budget)
	}
	require.Greater(t, a.plugin.Stats().Opened, uint64(2*maxPools), "else there were too few to prove anything")
	a.close(budget)
}

// TestManyIDs is the same where nothing but the pools costs time. It needs no
// PostgreSQL.
func TestManyIDs(t *testing.T) {
	const tenants, maxPools, budget, workers = 5000, 200, 100, 16
	f := &fleet{}
	var open atomic.Int64
	all := make([]*null, tenants)
	for i := range all {
		all[i] = &null{id: fmt.Sprintf("tenant-%d", i), open: &open}
	}
	a := f.open(t, tenancy.Limits{MaxPools: maxPools, MaxConnsPerServer: budget, AcquireTimeout: patience}, func(c *tenancy.Config) {
		c.Resolver = tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
			var i int
			if _, err := fmt.Sscanf(id, "tenant-%d", &i); err != nil {
				return tenancy.Database{}, err
			}
			return tenancy.Database{Connector: all[i], Server: "null"}, nil
		})
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	read := func(i int) error {
		var got string
		if err := a.db.WithContext(tenant.Ctx(ctx, all[i].id)).Raw("SELECT").Scan(&got).Error; err != nil {
			return err
		}
		if got != all[i].id {
			return fmt.Errorf("%s: read a row of %q", all[i].id, got)
		}
		return nil
	}
	require.NoError(t, read(0))
	before := measure()
	for range 2 {
		require.NoError(t, zipf(workers, 10_000, tenants, read))
		a.bounded(before, maxPools, budget)
	}
	require.Greater(t, a.plugin.Stats().Opened, uint64(2000), "else there were too few tenants to prove anything")
	a.close(budget)
	require.Zero(t, open.Load(), "connections")
}

// null is a database that answers each query with its own id.
type null struct {
	id   string
	open *atomic.Int64
}

func (n *null) Connect(context.Context) (driver.Conn, error) {
	n.open.Add(1)
	return &nullConn{n}, nil
}
func (n *null) Driver() driver.Driver { return nil }

type nullConn struct{ n *null }

func (c *nullConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (c *nullConn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }
func (c *nullConn) Close() error {
	c.n.open.Add(-1)
	return nil
}

func (c *nullConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &nullRows{id: c.n.id}, nil
}

type nullRows struct {
	id   string
	done bool
}

func (r *nullRows) Columns() []string { return []string{"id"} }
func (r *nullRows) Close() error      { return nil }
func (r *nullRows) Next(dest []driver.Value) error {
	if r.done {
		return io.EOF
	}
	r.done = true
	dest[0] = r.id
	return nil
}
