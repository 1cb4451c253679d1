//go:build !race

package bench

import (
	"testing"

	"gorm.io/gorm"
)

// TestAllocs proves that a statement allocates no more with the module than
// without it. Only a transaction does, also the default one of a write: it is
// one value more, the one that knows its tenant. The race detector allocates
// too, so the test is left out under it: scripts/test.sh runs it without.
func TestAllocs(t *testing.T) {
	begins := map[string]bool{"Create": true, "Update": true, "Delete": true, "Transaction": true}
	for _, skip := range []bool{false, true} {
		both := sides(t, gorm.Config{SkipDefaultTransaction: skip})
		for _, w := range work {
			limit := 0.0
			if begins[w.name] && !skip || w.name == "Transaction" {
				limit = 1
			}
			var allocs [2]float64
			for i, s := range both {
				db := s.db.WithContext(s.ctx)
				allocs[i] = testing.AllocsPerRun(200, func() {
					if err := w.do(db.WithContext(s.ctx)); err != nil {
						t.Fatal(err)
					}
				})
			}
			if more := allocs[1] - allocs[0]; more > limit {
				t.Errorf("SkipDefaultTransaction=%v: %s allocates %v more than plain GORM (%v and %v), want at most %v",
					skip, w.name, more, allocs[1], allocs[0], limit)
			}
		}
	}
}
