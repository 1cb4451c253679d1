package catalog_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// TestFleetReportOfNothing: where the run could not begin there is no report,
// and what a program does with every report must still be safe.
func TestFleetReportOfNothing(t *testing.T) {
	t.Parallel()
	pr := newPlace(t, "sqlite").start(t, withSteps(steps{target: 1}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	report, err := pr.catalog.MigrateAll(ctx, migrate.Options{})
	require.ErrorIs(t, err, context.Canceled)
	require.NotZero(t, report.ExitCode())
	var text bytes.Buffer
	_, err = report.WriteTo(&text)
	require.NoError(t, err)
}

// TestFleetReportOfMoving: a tenant whose move or rename was left unfinished is
// behind, and can't be migrated. The run must not say that all are there.
func TestFleetReportOfMoving(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	pr := p.start(t, withSteps(steps{target: 1}))
	pr.create(t, "a")
	pr.create(t, "b")
	pr.exec(t, "UPDATE tenancy_tenants SET state = 'moving', task = 'rename' WHERE id = 'a'")
	report, err := p.start(t, withSteps(steps{target: 2})).catalog.MigrateTenants(t.Context(), migrate.Options{})
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Equal(t, map[string]migrate.Status{"a": migrate.StatusSkipped, "b": migrate.StatusDone}, statuses(report))
	require.Contains(t, report.Tenants[0].Error, "unfinished")
}

// TestFleetReportOfUnknown: an id that is no tenant's, a typing error say, was
// not migrated.
func TestFleetReportOfUnknown(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	pr := p.start(t, withSteps(steps{target: 1}))
	pr.create(t, "a")
	require.NoError(t, pr.catalog.MigrateTenant(t.Context(), "a"))
	err := pr.catalog.MigrateTenant(t.Context(), "typo")
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.ErrorContains(t, err, "there is no such tenant")

	report, err := p.start(t, withSteps(steps{target: 2})).catalog.MigrateTenants(t.Context(), migrate.Options{Only: []string{"a", "typo"}})
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Equal(t, map[string]migrate.Status{"a": migrate.StatusDone, "typo": migrate.StatusSkipped}, statuses(report))
}

// TestFleetReportBegan: it is when the run began, not when the report was made.
func TestFleetReportBegan(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		p.start(t, withSteps(steps{target: 1})).create(t, "a")
		var inTurn time.Time
		pr := p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			inTurn = time.Now()
			return nil
		}}))
		// The main database's clock is this machine's, cut to milliseconds.
		before := time.Now().Truncate(time.Millisecond)
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		require.False(t, report.Began.Before(before), "%v is before %v", report.Began, before)
		require.False(t, report.Began.After(inTurn), "%v is after %v", report.Began, inTurn)

		before = time.Now().Truncate(time.Millisecond)
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		require.Equal(t, 1, report.UpToDate)
		require.False(t, report.Began.Before(before), "also where there was nothing to do")
	})
}

// TestFleetReportWithoutBooks: the main database is lost in the middle of a run.
// Nothing that is known says that all tenants are there, so the exit code must
// not.
func TestFleetReportWithoutBooks(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		other := p.start(t, withSteps(steps{target: 1}))
		for i := range 3 {
			other.create(t, fmt.Sprint("t", i))
		}
		var once sync.Once
		pr := p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			once.Do(func() { other.exec(t, "ALTER TABLE tenancy_tenants RENAME TO away") })
			return nil
		}}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{PerServer: 1})
		other.exec(t, "ALTER TABLE away RENAME TO tenancy_tenants")
		require.ErrorIs(t, err, migrate.ErrBook)
		require.NotZero(t, report.ExitCode())
		require.Equal(t, migrate.StatusStopped, report.Status)

		// When it is there again, so is the tenant whose outcome was lost: it has
		// the lease, which runs out.
		other.forgetLeases(t)
		_, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		pr.allAt(t, 2)
	})
}

// TestFleetReportWhileOthersWork: other processes end turns while one makes its
// report. Each tenant is counted once all the same.
func TestFleetReportWhileOthersWork(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	pr := p.start(t, withSteps(steps{target: 1}))
	pr.create(t, "a")
	pr.create(t, "b")
	main, err := pr.db.DB()
	require.NoError(t, err)
	var tx *sql.Tx
	var run *running
	ready := make(chan struct{})
	run = p.start(t, withSteps(steps{target: 2})).run(migrate.Options{OnEvent: func(e migrate.Event) {
		if e.Kind != migrate.EventBegun {
			return
		}
		<-ready
		// What the report reads first has to wait.
		var err error
		if tx, err = main.Begin(); err == nil {
			_, err = tx.Exec("LOCK TABLE tenancy_runs IN ACCESS EXCLUSIVE MODE")
		}
		if err != nil {
			t.Error(err)
		}
		run.cancel()
	}})
	close(ready)
	require.Eventually(t, func() bool {
		var n int
		err := main.QueryRow("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity USING (pid)" +
			" WHERE NOT granted AND locktype = 'relation' AND datname = current_database()").Scan(&n)
		return err == nil && n > 0
	}, bound, 5*time.Millisecond)
	pr.exec(t, "UPDATE tenancy_tenants SET version = 2, fingerprint = 'steps-2', run = (SELECT max(run) FROM tenancy_run_members) WHERE id = 'a'")
	require.NoError(t, tx.Rollback())
	report, err := run.end(t)
	require.ErrorIs(t, err, migrate.ErrStopped)
	require.Equal(t, 2, total(report), "%+v", report)
	require.Zero(t, report.UpToDate)
	require.Equal(t, 1, report.Done)
	require.Equal(t, 1, report.Left)
}

// TestFleetNeedsFingerprint: without one, nobody could tell which tenants these
// migrations have reached. It is said at once.
func TestFleetNeedsFingerprint(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	p.start(t, withSteps(steps{target: 1})).create(t, "a")
	pr := p.start(t, func(cfg *catalog.Config) { cfg.Migrator = printless{steps{target: 2}} })
	_, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
	require.ErrorContains(t, err, "empty fingerprint")
	row, err := pr.catalog.Get(t.Context(), "a")
	require.NoError(t, err)
	require.EqualValues(t, 1, row.Version)
}

// printless is a Migrator whose author knew of no fingerprint.
type printless struct{ steps }

func (p printless) Target() (int64, string) { return p.target, "" }
