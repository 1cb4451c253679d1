package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

const (
	outageTenants = 8 // on each server
	outageWorkers = 8 // for the dead server; as many for the healthy one
)

// BenchmarkOutage measures the tenants of a healthy server, first while another
// server is well and equally busy, then while that one is dead and its callers
// don't stop. Those are paced as a client would be that is answered: one call
// in a millisecond each. The figures are latencies of the healthy tenants, and
// how fast the others fail.
func BenchmarkOutage(b *testing.B) {
	well, dead := pgtest.Start(b), pgtest.Start(b)
	main, err := gorm.Open(postgres.Open(well.DSN("postgres")), quiet())
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, main)
	static := tenancy.Static{}
	for name, pg := range map[string]*pgtest.Cluster{"well": well, "dead": dead} {
		for i := range outageTenants {
			static[fmt.Sprintf("%s-%d", name, i)] = tenancy.Database{DSN: pg.DSN(pg.CreateDatabase(b))}
		}
	}
	plugin := tenancy.New(tenancy.Config{Resolver: static, Engine: tenancypg.Engine{}})
	if err := main.Use(plugin); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := plugin.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	ask := func(server string, worker int) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var one int
		return main.WithContext(tenant.Ctx(ctx, fmt.Sprintf("%s-%d", server, worker%outageTenants))).Raw("SELECT 1").Scan(&one).Error
	}

	// measure lets both sides run and returns the latencies of each.
	measure := func(down bool) (healthy, other []time.Duration) {
		var (
			mu    sync.Mutex
			all   sync.WaitGroup
			begin = time.Now()
		)
		run := func(server string, worker int, into *[]time.Duration) {
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			var took []time.Duration
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				*into = append(*into, took...)
			}()
			for time.Since(begin) < *contentionTime {
				<-pace.C
				start := time.Now()
				err := ask(server, worker)
				took = append(took, time.Since(start))
				if err != nil && (server == "well" || !down || !errors.Is(err, tenancy.ErrUnavailable)) && !isBreak(err, down) {
					b.Errorf("%s: %v", server, err)
					return
				}
			}
		}
		for w := range outageWorkers {
			all.Go(func() { run("well", w, &healthy) })
			all.Go(func() { run("dead", w, &other) })
		}
		all.Wait()
		return healthy, other
	}
	at := func(all []time.Duration, q float64) float64 {
		slices.SortFunc(all, func(x, y time.Duration) int { return cmp.Compare(x, y) })
		return float64(all[int(q*float64(len(all)-1))].Nanoseconds()) / 1000
	}
	for range b.N {
		before, _ := measure(false)
		dead.Kill()
		during, failing := measure(true)
		b.ReportMetric(at(before, 0.5), "well-p50-us")
		b.ReportMetric(at(before, 0.99), "well-p99-us")
		b.ReportMetric(at(during, 0.5)/at(before, 0.5), "outage-p50-ratio")
		b.ReportMetric(at(during, 0.99)/at(before, 0.99), "outage-p99-ratio")
		b.ReportMetric(at(failing, 0.5), "failing-p50-us")
		b.ReportMetric(at(failing, 0.99), "failing-p99-us")
		b.ReportMetric(0, "ns/op") // means nothing here, and 0 hides it
		dead.Restart()
	}
}

// isBreak reports whether err is what a statement says whose connection the
// dying server broke.
func isBreak(err error, down bool) bool {
	return down && (tenancypg.Engine{}).Classify(err) == tenancy.FaultServer
}
