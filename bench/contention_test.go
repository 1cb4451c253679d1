package bench

import (
	"cmp"
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) {
	if isChild() {
		os.Exit(runChild())
	}
	os.Exit(pgtest.Run(m))
}

var contentionTime = flag.Duration("contention-time", 5*time.Second, "how long each way of BenchmarkContention runs")

const (
	contentionTenants = 40
	contentionWorkers = 16
	contentionBudget  = 10 // connections to the server, where a way has a limit
	contentionRows    = 100
)

// Doc is a row of a tenant's database.
type Doc struct {
	ID     uint
	Tenant string
}

// way is one way to reach many tenants' databases. read reads one row of a
// tenant by its primary key.
type way struct {
	name string
	open func(b *testing.B, f *fleet) (read func(ctx context.Context, id string, doc *Doc, key int) error)
}

// fleet is a server with the tenants' databases.
type fleet struct {
	pg        *pgtest.Cluster
	ids       []string
	databases map[string]string // by tenant
}

// BenchmarkContention runs more workers than the server is to have connections,
// over more tenants than that: each operation reads one row of a tenant chosen
// at random. The ways run one after the other on one server, each for
// -contention-time. peak-backends are the server's processes for them.
func BenchmarkContention(b *testing.B) {
	f := newFleet(b)
	for _, w := range []way{
		{"map", handMade},
		{"dbresolver", resolverPerTenant},
		{"pgbouncer", throughBouncer},
		{"tenancy", withTenancy},
	} {
		b.Run(w.name, func(b *testing.B) {
			f.waitForBackends(b, 0) // of the way before
			read := w.open(b, f)
			for _, id := range f.ids { // opens what is opened once
				if err := read(context.Background(), id, &Doc{}, 1); err != nil {
					b.Fatal(err)
				}
			}
			for range b.N {
				f.contend(b, read)
			}
		})
	}
}

func newFleet(b *testing.B) *fleet {
	f := &fleet{pg: pgtest.Start(b, pgtest.MaxConns(400)), databases: map[string]string{}}
	for i := range contentionTenants {
		id := fmt.Sprintf("t%02d", i)
		name := f.pg.CreateDatabase(b)
		f.pg.Exec(b, name, "CREATE TABLE docs (id bigserial PRIMARY KEY, tenant text NOT NULL)")
		f.pg.Exec(b, name, fmt.Sprintf("INSERT INTO docs (tenant) SELECT $1 FROM generate_series(1, %d)", contentionRows), id)
		f.ids = append(f.ids, id)
		f.databases[id] = name
	}
	return f
}

// contend lets the workers run, and reports what they met.
func (f *fleet) contend(b *testing.B, read func(context.Context, string, *Doc, int) error) {
	b.Helper()
	stop := make(chan struct{})
	peak := f.watchBackends(b, stop)

	ctx, cancel := context.WithTimeout(context.Background(), *contentionTime+time.Minute)
	defer cancel()
	var (
		workers sync.WaitGroup
		errs    atomic.Int64
		first   atomic.Pointer[error]
		times   [contentionWorkers][]time.Duration
	)
	begin := time.Now()
	for w := range contentionWorkers {
		workers.Go(func() {
			for {
				start := time.Now()
				if start.Sub(begin) > *contentionTime {
					return
				}
				id := f.ids[rand.IntN(len(f.ids))]
				var doc Doc
				err := read(ctx, id, &doc, 1+rand.IntN(contentionRows))
				if err == nil && doc.Tenant != id {
					err = fmt.Errorf("read a row of %s for %s", doc.Tenant, id)
				}
				if err != nil {
					errs.Add(1)
					first.CompareAndSwap(nil, &err)
					continue
				}
				times[w] = append(times[w], time.Since(start))
			}
		})
	}
	workers.Wait()
	took := time.Since(begin)
	close(stop)

	all := slices.Concat(times[:]...)
	slices.SortFunc(all, func(x, y time.Duration) int { return cmp.Compare(x, y) })
	if len(all) == 0 {
		b.Fatalf("nothing was read: %v", *first.Load())
	}
	if err := first.Load(); err != nil {
		b.Logf("the first of %d errors: %v", errs.Load(), *err)
	}
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
	b.ReportMetric(float64(len(all))/took.Seconds(), "ops/s")
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(1), "max-ms")
	b.ReportMetric(float64(errs.Load()), "errors")
	b.ReportMetric(float64(<-peak), "peak-backends")
	b.ReportMetric(0, "ns/op") // means nothing here, and 0 hides it
}

const countBackends = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'pgtest_%'"

// watchBackends counts the tenants' backends until stop is closed, and then
// sends the highest count.
func (f *fleet) watchBackends(b *testing.B, stop <-chan struct{}) <-chan int {
	conn := f.pg.Admin(b) // on no tenant's database
	out := make(chan int, 1)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		peak := 0
		for {
			var n int
			if err := conn.QueryRow(context.Background(), countBackends).Scan(&n); err != nil {
				b.Error(err)
			}
			peak = max(peak, n)
			select {
			case <-stop:
				out <- peak
				return
			case <-tick.C:
			}
		}
	}()
	return out
}

func (f *fleet) waitForBackends(b *testing.B, want int) {
	b.Helper()
	conn := f.pg.Admin(b)
	for deadline := time.Now().Add(30 * time.Second); ; {
		var n int
		if err := conn.QueryRow(context.Background(), countBackends).Scan(&n); err != nil {
			b.Fatal(err)
		}
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%d backends are left", n)
		}
	}
}

// quiet is a new one each time: gorm.Open keeps it.
func quiet() *gorm.Config { return &gorm.Config{Logger: logger.Discard} }

// closeAtEnd closes db's pool when the benchmark is over.
func closeAtEnd(b *testing.B, db *gorm.DB) {
	b.Cleanup(func() {
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
}

// handMade is what most applications begin with.
func handMade(b *testing.B, f *fleet) func(context.Context, string, *Doc, int) error {
	var mu sync.Mutex
	dbs := map[string]*gorm.DB{}
	open := func(id string) (*gorm.DB, error) {
		mu.Lock()
		defer mu.Unlock()
		if db, ok := dbs[id]; ok {
			return db, nil
		}
		db, err := gorm.Open(postgres.Open(f.pg.DSN(f.databases[id])), quiet())
		if err != nil {
			return nil, err
		}
		closeAtEnd(b, db)
		dbs[id] = db
		return db, nil
	}
	return func(ctx context.Context, id string, doc *Doc, key int) error {
		db, err := open(id)
		if err != nil {
			return err
		}
		return db.WithContext(ctx).First(doc, key).Error
	}
}

// resolverPerTenant gives each tenant a resolver of its own.
func resolverPerTenant(b *testing.B, f *fleet) func(context.Context, string, *Doc, int) error {
	db, err := gorm.Open(postgres.Open(f.pg.DSN("postgres")), quiet())
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, db)
	plugin := &dbresolver.DBResolver{}
	for _, id := range f.ids {
		plugin.Register(dbresolver.Config{Sources: []gorm.Dialector{postgres.Open(f.pg.DSN(f.databases[id]))}}, id)
	}
	if err := db.Use(plugin); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = plugin.Call(func(pool gorm.ConnPool) error {
			if pool, ok := pool.(*sql.DB); ok {
				return pool.Close()
			}
			return nil
		})
	})
	return func(ctx context.Context, id string, doc *Doc, key int) error {
		return db.WithContext(ctx).Clauses(dbresolver.Use(id)).First(doc, key).Error
	}
}

// throughBouncer is the hand-made map again, with PgBouncer to hold the limit.
func throughBouncer(b *testing.B, f *fleet) func(context.Context, string, *Doc, int) error {
	limit := fmt.Sprint(contentionBudget)
	bouncer := pgtest.StartBouncer(b, f.pg,
		pgtest.PoolMode("transaction"),
		pgtest.BouncerSetting("default_pool_size", limit),
		pgtest.BouncerSetting("max_user_connections", limit))
	dbs := map[string]*gorm.DB{}
	for _, id := range f.ids {
		cfg, err := pgx.ParseConfig(bouncer.DSN(f.databases[id]))
		if err != nil {
			b.Fatal(err)
		}
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
		pool := stdlib.OpenDB(*cfg)
		pool.SetMaxIdleConns(contentionWorkers) // clients of PgBouncer cost little
		if dbs[id], err = gorm.Open(postgres.New(postgres.Config{Conn: pool}), quiet()); err != nil {
			b.Fatal(err)
		}
		closeAtEnd(b, dbs[id])
	}
	return func(ctx context.Context, id string, doc *Doc, key int) error {
		return dbs[id].WithContext(ctx).First(doc, key).Error
	}
}

// withTenancy is this module.
func withTenancy(b *testing.B, f *fleet) func(context.Context, string, *Doc, int) error {
	db, err := gorm.Open(postgres.Open(f.pg.DSN("postgres")), quiet())
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, db)
	static := tenancy.Static{}
	for _, id := range f.ids {
		static[id] = tenancy.Database{DSN: f.pg.DSN(f.databases[id])}
	}
	plugin := tenancy.New(tenancy.Config{Resolver: static, Engine: tenancypg.Engine{},
		Pools: tenancy.Limits{MaxConnsPerServer: contentionBudget}})
	if err := db.Use(plugin); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := plugin.Close(ctx); err != nil {
			b.Error(err)
		}
	})
	return func(ctx context.Context, id string, doc *Doc, key int) error {
		return db.WithContext(tenant.Ctx(ctx, id)).First(doc, key).Error
	}
}
