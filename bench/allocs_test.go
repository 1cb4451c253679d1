//go:build !race

package bench

import (
	"runtime"
	"testing"

	"gorm.io/gorm"
)

// TestAllocs proves that a statement allocates no more with the module than
// without it, and with replicas no more than with dbresolver. Transactions are left out, also the default ones of writes: each
// has one value more, which knows its tenant, but database/sql starts
// goroutines for them whose allocations vary by more than that. So is the race
// detector, which allocates too: scripts/test.sh runs the test without.
func TestAllocs(t *testing.T) {
	all := sides(t, gorm.Config{SkipDefaultTransaction: true})
	for _, w := range work {
		if w.name == "Transaction" {
			continue
		}
		allocs := map[string]float64{}
		for _, s := range all {
			db := s.db.WithContext(s.ctx)
			allocs[s.name] = mean(func() {
				if err := w.do(db.WithContext(s.ctx)); err != nil {
					t.Fatal(err)
				}
			})
		}
		for ours, theirs := range map[string]string{"tenancy": "plain", "replicas": "dbresolver"} {
			if more := allocs[ours] - allocs[theirs]; more > 0.5 {
				t.Errorf("%s, %s: allocates %.2f more than %s (%.2f and %.2f)", w.name, ours, more, theirs, allocs[ours], allocs[theirs])
			}
		}
	}
}

// mean returns the mean number of allocations of fn over many runs. A single
// run's varies by a few with the seeds of its maps, and
// testing.AllocsPerRun rounds.
func mean(fn func()) float64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const runs = 2000
	fn()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		fn()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / runs
}
