package soak

import (
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

var soakFor = flag.Duration("soak", 0, "how long each load runs; by default, for a bounded number of pieces of work")

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

// patience bounds what a test waits for. It is no measure of speed: nothing
// that works comes near it on the slowest machine.
const patience = time.Minute

// eventually polls ok, for what gives no sign of its own: the server's view of
// a connection, a snapshot of Stats.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
