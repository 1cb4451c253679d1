package catalog_test

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// What the tests of fleet runs have in common.

// exec changes the books by hand: what another process, or time, would do.
func (pr *process) exec(t *testing.T, query string) {
	t.Helper()
	main, err := pr.db.DB()
	require.NoError(t, err)
	_, err = main.Exec(query)
	require.NoError(t, err)
}

// gate stops the first migration that comes to it, and no other.
type gate struct {
	came    atomic.Bool
	reached chan struct{}
	opened  chan struct{}
	open    func()
}

func newGate() *gate {
	g := &gate{reached: make(chan struct{}), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	return g
}

// pass is for steps.before.
func (g *gate) pass(context.Context, *sql.Tx, int64) error {
	if g.came.CompareAndSwap(false, true) {
		close(g.reached)
		<-g.opened
	}
	return nil
}

// bound is how long a test waits for what must happen. It is only used up by
// a test that fails.
const bound = 30 * time.Second

// wait waits for an event.
func wait(t *testing.T, what string, event <-chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-time.After(bound):
		require.Fail(t, "it does not happen: "+what)
	}
}

// running is a run that goes on in the background.
type running struct {
	cancel context.CancelFunc
	ended  chan struct{}
	report *migrate.Report
	err    error
}

func (pr *process) run(opt migrate.Options) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.report, r.err = pr.catalog.MigrateTenants(ctx, opt)
	}()
	return r
}

// end waits for the end of the run, which must come by itself.
func (r *running) end(t *testing.T) (*migrate.Report, error) {
	t.Helper()
	defer r.cancel()
	wait(t, "the end of the run", r.ended)
	return r.report, r.err
}

// total is the number of tenants that a report speaks of.
func total(r *migrate.Report) int {
	return r.UpToDate + r.Ahead + r.Done + r.Failed + r.Skipped + r.Left
}

// turns counts the tenants' turns, of any number of processes.
type turns struct {
	mu sync.Mutex
	of map[string]int
}

func (n *turns) count(e migrate.Event) {
	switch e.Kind {
	case migrate.EventDone, migrate.EventFailed, migrate.EventRetry, migrate.EventLost, migrate.EventAhead:
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.of == nil {
			n.of = map[string]int{}
		}
		n.of[e.Result.Tenant]++
	}
}

// most says that each of the tenants had its turn, and none more than that.
func (n *turns) most(t *testing.T, most int, ids ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	require.Len(t, n.of, len(ids))
	for id, got := range n.of {
		require.LessOrEqual(t, got, most, "%s: %v", id, n.of)
	}
}
