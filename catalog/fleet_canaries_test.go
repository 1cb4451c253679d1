package catalog_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// TestFleetCanariesBesideRequest: a request migrates its tenant by
// MigrateTenant while the canaries of a run have their turn. Neither hurts the
// other: the request is not among the canaries, and no reason to halt.
func TestFleetCanariesBesideRequest(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	pr := p.start(t, withSteps(steps{target: 1}))
	pr.createAll(t, "a", "b", "c")
	g := newGate()
	defer g.open()
	run := p.start(t, withSteps(steps{target: 2, before: g.pass})).run(migrate.Options{Canaries: []string{"a"}})
	wait(t, "the canary's turn", g.reached)
	require.NoError(t, p.start(t, withSteps(steps{target: 2})).catalog.MigrateTenant(t.Context(), "b"))
	g.open()
	_, err := run.end(t)
	require.NoError(t, err)
	pr.allAt(t, 2)
}

// TestFleetCanariesAfterRequest: a request's MigrateTenant was there first. The
// deployment's canaries are not left out for that.
func TestFleetCanariesAfterRequest(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	pr := p.start(t, withSteps(steps{target: 1}))
	pr.createAll(t, "a", "b", "c")
	g := newGate()
	defer g.open()
	request := p.start(t, withSteps(steps{target: 2, before: g.pass})).run(migrate.Options{Only: []string{"b"}})
	wait(t, "its turn", g.reached)
	asked := 0
	_, err := p.start(t, withSteps(steps{target: 2})).catalog.MigrateTenants(t.Context(), migrate.Options{Canaries: []string{"a"},
		AfterCanaries: func(_ context.Context, results []migrate.Result) error {
			defer g.open()
			asked++
			require.Len(t, results, 1)
			require.Equal(t, "a", results[0].Tenant)
			return nil
		}})
	require.NoError(t, err)
	require.Equal(t, 1, asked)
	_, err = request.end(t)
	require.NoError(t, err)
	pr.allAt(t, 2)
}

// TestFleetCanaryThatFailedBefore: a canary that needs attention since an
// earlier run is left out, and so it says nothing for the migrations. The others
// must not be migrated as if it had gone well.
func TestFleetCanaryThatFailedBefore(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	p.start(t, withSteps(steps{target: 1, before: makesNotes})).named(t, "a", "b", "c")
	pr := p.start(t, withSteps(steps{target: 2, before: failing("a")}))
	require.ErrorIs(t, pr.catalog.MigrateTenant(t.Context(), "a"), migrate.ErrIncomplete)
	// Patience is that with another process, which may do the canary.
	report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{Canaries: []string{"a"}, Patience: -1})
	require.ErrorIs(t, err, migrate.ErrHalted)
	require.Contains(t, report.Reason, "canary a")
	require.Zero(t, report.Done)
	require.Equal(t, 2, report.Left)
}

// TestFleetRetryOfOneLeavesTheHalt: to try one tenant again is not to let the
// migrations loose on all others.
func TestFleetRetryOfOneLeavesTheHalt(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	ids := []string{"t0", "t1", "t2", "t3"} // numbers, so that the failures look alike
	p.start(t, withSteps(steps{target: 1, before: makesNotes})).named(t, ids...)
	pr := p.start(t, withSteps(steps{target: 2, before: failing(ids...)}))
	opt := migrate.Options{PerServer: 1, Breaker: 2}
	report, err := pr.catalog.MigrateTenants(t.Context(), opt)
	require.ErrorIs(t, err, migrate.ErrHalted)
	require.Equal(t, 2, report.Left)
	one := report.Tenants[0].Tenant

	report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true, Only: []string{one}, Breaker: -1})
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Equal(t, 1, report.Failed)
	// A replica that starts.
	report, err = pr.catalog.MigrateTenants(t.Context(), opt)
	require.ErrorIs(t, err, migrate.ErrHalted)
	require.Equal(t, 2, report.Left)
	require.Equal(t, 4, total(report), "who finds it halted counts all tenants too")

	// With what was wrong mended, the one is brought forward, and the rest waits.
	mended := p.start(t, withSteps(steps{target: 2}))
	report, err = mended.catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true, Only: []string{one}})
	require.NoError(t, err)
	require.Equal(t, 1, report.Done)
	report, err = mended.catalog.MigrateTenants(t.Context(), opt)
	require.ErrorIs(t, err, migrate.ErrHalted)
	require.Equal(t, 2, report.Left)
}
