package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestFleet(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		old := p.start(t, withSteps(steps{target: 1}), func(cfg *catalog.Config) { cfg.Ready = 1 })
		for i := range 4 {
			old.create(t, fmt.Sprintf("t%d", i))
		}
		require.NoError(t, old.catalog.Suspend(t.Context(), "t3", catalog.SuspendOptions{Reason: "unpaid"}))
		require.NoError(t, old.catalog.FillReady(t.Context()))
		for i := range 3 { // their pools are open
			require.NoError(t, old.in(fmt.Sprintf("t%d", i)).Exec("SELECT version FROM applied").Error)
		}

		pr := p.start(t, withSteps(steps{target: 3}))
		dry, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{DryRun: true})
		require.NoError(t, err)
		require.Equal(t, migrate.StatusPending, dry.Status)
		require.Equal(t, 5, dry.Left)
		require.Len(t, dry.Tenants, 5)

		var events []migrate.Event
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{OnEvent: func(e migrate.Event) { events = append(events, e) }})
		require.NoError(t, err)
		require.Equal(t, migrate.StatusDone, report.Status, "%+v", report)
		require.Equal(t, 5, report.Done)
		require.Zero(t, report.UpToDate)
		require.Equal(t, migrate.EventBegun, events[0].Kind)
		require.Equal(t, 5, events[0].Counts.Left)
		last := events[len(events)-1]
		require.Equal(t, migrate.EventEnded, last.Kind)
		require.Equal(t, migrate.Counts{Done: 5}, last.Counts)
		for _, res := range report.Tenants {
			require.EqualValues(t, 1, res.From)
			require.EqualValues(t, 3, res.To)
			require.Len(t, res.Applied, 2)
			require.Equal(t, 1, res.Attempts)
			require.Positive(t, res.Took)
		}
		pr.allAt(t, 3)
		suspended, err := pr.catalog.Get(t.Context(), "t3")
		require.NoError(t, err)
		require.Equal(t, catalog.Suspended, suspended.State)
		require.NoError(t, pr.catalog.Unsuspend(t.Context(), "t3"))
		old.inOrder(t)

		again, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		require.Equal(t, migrate.StatusDone, again.Status)
		require.Equal(t, 5, again.UpToDate)
		require.Empty(t, again.Tenants)
		require.Empty(t, again.Run, "nothing was begun")

		// What an older program sees.
		report, err = old.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		require.Equal(t, 5, report.Ahead)
	})
}

func TestFleetFailures(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		p.start(t, withSteps(steps{target: 1, before: makesNotes})).named(t, "a", "b", "c", "d", "e")
		pr := p.start(t, withSteps(steps{target: 2, before: failing("b", "d")}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.ErrorIs(t, err, migrate.ErrIncomplete)
		require.Equal(t, migrate.StatusPartial, report.Status)
		require.Equal(t, 2, report.ExitCode())
		require.Equal(t, 3, report.Done)
		require.Equal(t, 2, report.Failed)
		b := report.Tenants[0]
		require.Equal(t, "b", b.Tenant)
		require.Equal(t, migrate.StatusFailed, b.Status)
		require.Equal(t, 1, b.Attempts, "it can't go away by itself")
		require.EqualValues(t, 2, b.Version)
		require.EqualValues(t, 1, b.To)
		require.Contains(t, b.Error, "missing_b")
		if p.Engine == "postgres" {
			require.Equal(t, "42P01", b.SQLState)
		}
		pr.allAt(t, 2, "b", "d")
		row, err := pr.catalog.Get(t.Context(), "b")
		require.NoError(t, err)
		require.NotEmpty(t, row.Attention)
		require.NoError(t, pr.in("b").Exec("SELECT 1").Error, "it is served meanwhile")

		// Run again, they are left out, and reported; then they are mended.
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.ErrorIs(t, err, migrate.ErrIncomplete)
		require.Equal(t, map[string]migrate.Status{"b": migrate.StatusSkipped, "d": migrate.StatusSkipped}, statuses(report))
		require.Contains(t, report.Tenants[0].Error, "missing_b")
		pr = p.start(t, withSteps(steps{target: 2}))
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true})
		require.NoError(t, err)
		require.Equal(t, map[string]migrate.Status{"b": migrate.StatusDone, "d": migrate.StatusDone}, statuses(report))
		pr.allAt(t, 2)
	})
}

func TestFleetBreaker(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		var ids []string
		for i := range 12 {
			ids = append(ids, fmt.Sprintf("t%02d", i))
		}
		p.start(t, withSteps(steps{target: 1, before: makesNotes})).named(t, ids...)
		pr := p.start(t, withSteps(steps{target: 2, before: failing(ids...)}))
		var halted atomic.Int32
		opt := migrate.Options{PerServer: 1, OnEvent: func(e migrate.Event) {
			if e.Kind == migrate.EventHalted {
				halted.Add(1)
			}
		}}
		report, err := pr.catalog.MigrateTenants(t.Context(), opt)
		require.ErrorIs(t, err, migrate.ErrHalted)
		require.Equal(t, migrate.StatusHalted, report.Status)
		require.Equal(t, 3, report.ExitCode())
		require.Equal(t, 3, report.Failed)
		require.Equal(t, 9, report.Left)
		require.Contains(t, report.Reason, "3 tenants failed in the same way")
		require.EqualValues(t, 1, halted.Load())

		report, err = pr.catalog.MigrateTenants(t.Context(), opt)
		require.ErrorIs(t, err, migrate.ErrHalted, "the next process to start breaks no further tenants")
		require.Equal(t, 3, report.ExitCode())
		require.Equal(t, 9, report.Left)

		fixed := p.start(t, withSteps(steps{target: 2, print: "fixed"}))
		report, err = fixed.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err, "a fix goes on by itself")
		require.Equal(t, 12, report.Done)
		fixed.allAt(t, 2)
	})
}

func TestFleetCanaries(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		ids := []string{"a", "b", "c", "d", "e", "f"}
		p.start(t, withSteps(steps{target: 1, before: makesNotes})).named(t, ids...)
		pr := p.start(t, withSteps(steps{target: 2, before: failing("e")}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{Canaries: []string{"d", "e", "unknown"}})
		require.ErrorIs(t, err, migrate.ErrHalted)
		require.Equal(t, map[string]migrate.Status{"d": migrate.StatusDone, "e": migrate.StatusFailed}, statuses(report))
		require.Equal(t, 4, report.Left)
		require.Contains(t, report.Reason, "canary e")

		pr = p.start(t, withSteps(steps{target: 2, print: "fixed"}))
		var order []string
		var mu sync.Mutex
		asked := 0
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{
			Canaries: []string{"d", "e"},
			OnEvent: func(e migrate.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == migrate.EventDone {
					order = append(order, e.Result.Tenant)
				}
			},
			AfterCanaries: func(_ context.Context, results []migrate.Result) error {
				mu.Lock()
				defer mu.Unlock()
				asked++
				require.Len(t, order, 2, "nobody else had a turn")
				require.Len(t, results, 2)
				return nil
			},
		})
		require.NoError(t, err)
		require.Equal(t, 1, asked)
		require.Equal(t, 6, report.Done)
		slices.Sort(order[:2])
		require.Equal(t, []string{"d", "e"}, order[:2])

		pr = p.start(t, withSteps(steps{target: 3}))
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{Canaries: []string{"a"},
			AfterCanaries: func(context.Context, []migrate.Result) error { return errors.New("error rate is up") }})
		require.ErrorIs(t, err, migrate.ErrHalted)
		require.Contains(t, report.Reason, "error rate is up")
		require.Equal(t, 5, report.Left)
	})
}
