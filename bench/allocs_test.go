//go:build !race

package bench

import (
	"runtime"
	"testing"

	"gorm.io/gorm"
)

// TestAllocs proves that a statement allocates no more with the module than
// without it. Transactions are left out, also the default ones of writes: each
// has one value more, which knows its tenant, but database/sql starts
// goroutines for them whose allocations vary by more than that. So is the race
// detector, which allocates too: scripts/test.sh runs the test without.
func TestAllocs(t *testing.T) {
	both := sides(t, gorm.Config{SkipDefaultTransaction: true})
	for _, w := range work {
		if w.name == "Transaction" {
			continue
		}
		var allocs [2]float64
		for i, s := range both {
			db := s.db.WithContext(s.ctx)
			allocs[i] = mean(func() {
				if err := w.do(db.WithContext(s.ctx)); err != nil {
					t.Fatal(err)
				}
			})
		}
		if more := allocs[1] - allocs[0]; more > 0.5 {
			t.Errorf("%s allocates %.2f more than plain GORM (%.2f and %.2f)", w.name, more, allocs[1], allocs[0])
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
