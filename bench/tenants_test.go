package bench

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// BenchmarkCold compares the first statement of a tenant that is not open with
// a bare sql.DB that is opened for it: both parse the DSN, open a pool, connect
// and ask for one row. They take turns, so that a loaded machine slows both;
// the figures are medians.
func BenchmarkCold(b *testing.B) {
	pg := pgtest.Start(b)
	dsn := pg.DSN(pg.CreateDatabase(b))
	main, err := gorm.Open(postgres.Open(pg.DSN("postgres")), quiet())
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, main)
	plugin := tenancy.New(tenancy.Config{
		Resolver: tenancy.Static{"cold": {DSN: dsn}}, Engine: tenancypg.Engine{},
	})
	if err := main.Use(plugin); err != nil {
		b.Fatal(err)
	}
	ctx := tenant.Ctx(context.Background(), "cold")
	b.Cleanup(func() {
		if err := plugin.Close(ctx); err != nil {
			b.Error(err)
		}
	})

	ours := func() time.Duration {
		start := time.Now()
		var one int
		if err := main.WithContext(ctx).Raw("SELECT 1").Scan(&one).Error; err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		if err := plugin.Drain(ctx, "cold"); err != nil {
			b.Fatal(err)
		}
		return took
	}
	bare := func() time.Duration {
		start := time.Now()
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			b.Fatal(err)
		}
		db := sql.OpenDB(stdlib.GetConnector(*cfg))
		var one int
		if err := db.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		return took
	}

	var times [2][]time.Duration
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 { // who comes second finds the server warmer
			times[0], times[1] = append(times[0], ours()), append(times[1], bare())
		} else {
			times[1], times[0] = append(times[1], bare()), append(times[0], ours())
		}
	}
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return float64(all[len(all)/2].Nanoseconds()) / 1000
	}
	tenancyUS, bareUS := median(times[0]), median(times[1])
	b.ReportMetric(tenancyUS, "tenancy-us")
	b.ReportMetric(bareUS, "bare-us")
	b.ReportMetric(100*(tenancyUS/bareUS-1), "over-%")
	b.ReportMetric(0, "ns/op") // both together: hidden
}

// BenchmarkMemory weighs tenants against bare sql.DBs: those that sleep, whose
// pool is open and has no connection, on a driver of nothing; and those that
// are awake, with one idle connection to PostgreSQL. The figures are bytes of
// this process for each, stacks included.
func BenchmarkMemory(b *testing.B) {
	b.Run("sleeping", func(b *testing.B) {
		const n = 2000
		static := tenancy.Static{}
		for i := range n {
			id := fmt.Sprintf("t%d", i)
			static[id] = tenancy.Database{Connector: &null{name: id}}
		}
		weigh(b, static, nil, time.Millisecond, func() *gorm.DB { return open(b, gorm.Config{}) })
	})
	b.Run("awake", func(b *testing.B) {
		const n = 100
		pg := pgtest.Start(b, pgtest.MaxConns(2*n))
		static := tenancy.Static{}
		for i := range n {
			// One database each: two tenants on one are refused.
			name := pg.CreateDatabase(b)
			static[fmt.Sprintf("t%d", i)] = tenancy.Database{DSN: pg.DSN(name)}
		}
		weigh(b, static, tenancypg.Engine{}, time.Hour, func() *gorm.DB {
			main, err := gorm.Open(postgres.Open(pg.DSN("postgres")), quiet())
			if err != nil {
				b.Fatal(err)
			}
			closeAtEnd(b, main)
			return main
		})
	})
}

// weigh opens all tenants by one statement each. idle is how long a connection
// stays after it: a moment, and they sleep.
func weigh(b *testing.B, static tenancy.Static, engine tenancy.Engine, idle time.Duration, main func() *gorm.DB) {
	sleep := idle < time.Second
	bare := func() (keep any, drop func()) {
		var dbs []*sql.DB
		for _, d := range static {
			connector := d.Connector
			if connector == nil {
				var err error
				if connector, err = engine.Connector(d.DSN); err != nil {
					b.Fatal(err)
				}
			}
			db := sql.OpenDB(connector)
			db.SetMaxIdleConns(4)
			db.SetMaxOpenConns(4)
			db.SetConnMaxIdleTime(idle)
			if _, err := db.Exec("SELECT 1"); err != nil {
				b.Fatal(err)
			}
			dbs = append(dbs, db)
		}
		for _, db := range dbs {
			for sleep && db.Stats().OpenConnections > 0 {
				runtime.Gosched() // database/sql looks every second
			}
		}
		return dbs, func() {
			for _, db := range dbs {
				_ = db.Close()
			}
		}
	}
	ours := func(db *gorm.DB) func() (keep any, drop func()) {
		return func() (keep any, drop func()) {
			plugin := tenancy.New(tenancy.Config{
				Resolver: static, Engine: engine,
				Pools: tenancy.Limits{MaxPools: len(static), MaxConnsPerServer: len(static), ConnMaxIdleTime: idle},
			})
			if err := db.Use(plugin); err != nil {
				b.Fatal(err)
			}
			for id := range static {
				if err := db.WithContext(tenant.Ctx(context.Background(), id)).Exec("SELECT 1").Error; err != nil {
					b.Fatal(err)
				}
			}
			for sleep && plugin.Stats().Conns > 0 {
				runtime.Gosched()
			}
			return db, func() {
				if err := plugin.Close(context.Background()); err != nil {
					b.Error(err)
				}
			}
		}
	}
	for range b.N {
		// The runtime keeps what describes a goroutine after its end. Who comes
		// first would pay for all, so each goes twice and the second counts.
		grown(len(static), bare)
		grown(len(static), ours(main()))
		bareB := grown(len(static), bare)
		oursB := grown(len(static), ours(main()))
		b.ReportMetric(bareB, "bare-B")
		b.ReportMetric(oursB, "tenancy-B")
		b.ReportMetric(oursB-bareB, "over-B")
		b.ReportMetric(100*(oursB/bareB-1), "over-%")
		b.ReportMetric(0, "ns/op")
	}
}

// grown returns by how much memory grew for each of n things that open opened.
func grown(n int, open func() (keep any, drop func())) float64 {
	size := func() uint64 {
		runtime.GC()
		runtime.GC() // sync.Pools give up what they hold at the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	goroutines := runtime.NumGoroutine()
	before := size()
	keep, drop := open()
	after := size()
	runtime.KeepAlive(keep)
	drop()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	return (float64(after) - float64(before)) / float64(n)
}
