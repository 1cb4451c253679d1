package catalog_test

import (
	"context"
	"database/sql"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// TestFleetHookPanics: a hook that panics ends the run with an error. It leaves
// no lease, no membership that is renewed for ever, and (TestMain looks) no
// goroutine.
func TestFleetHookPanics(t *testing.T) {
	t.Parallel()
	on := func(kind migrate.EventKind) migrate.Options {
		return migrate.Options{OnEvent: func(e migrate.Event) {
			if e.Kind == kind {
				panic("no")
			}
		}}
	}
	for name, c := range map[string]struct {
		opt  migrate.Options
		want error
		done int // who had its turn
	}{
		"OnEvent at the beginning": {on(migrate.EventBegun), migrate.ErrStopped, 0},
		"OnEvent in the middle":    {on(migrate.EventDone), migrate.ErrStopped, 1},
		"AfterCanaries": {migrate.Options{Canaries: []string{"a"}, AfterCanaries: func(context.Context, []migrate.Result) error { panic("no") }},
			migrate.ErrHalted, 1},
		"Retire": {migrate.Options{Retire: func(string) { panic("no") }}, migrate.ErrStopped, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, "sqlite")
			old := p.start(t, withSteps(steps{target: 1}))
			old.create(t, "a")
			old.create(t, "b")
			pr := p.start(t, withSteps(steps{target: 2}))
			c.opt.PerServer = 1
			report, err := pr.catalog.MigrateTenants(t.Context(), c.opt)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, "panicked: no")
			require.NotZero(t, report.ExitCode())
			require.GreaterOrEqual(t, report.Done, c.done, "one more may have begun before it was heard")
			require.LessOrEqual(t, report.Done, 2*c.done)
			require.Equal(t, 2, total(report))

			main, err := pr.db.DB()
			require.NoError(t, err)
			var members, leases int
			require.NoError(t, main.QueryRow("SELECT (SELECT count(*) FROM tenancy_run_members),"+
				" (SELECT count(*) FROM tenancy_tenants WHERE lease_owner <> '')").Scan(&members, &leases))
			require.Zero(t, members)
			require.Zero(t, leases)
			_, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true})
			require.NoError(t, err)
			pr.allAt(t, 2)
		})
	}
}

// TestFleetMigrationPanics: the steps that were applied before stay in the book,
// and the pools are given up for them; otherwise the application would go on
// with plans of the old schema.
func TestFleetMigrationPanics(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	p.start(t, withSteps(steps{target: 1})).create(t, "a")
	pr := p.start(t, withSteps(steps{target: 3, before: func(_ context.Context, _ *sql.Tx, v int64) error {
		if v == 3 {
			panic("no")
		}
		return nil
	}}))
	var retired []string
	report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{Retire: func(id string) { retired = append(retired, id) }})
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Contains(t, report.Tenants[0].Error, "panicked: no")
	require.EqualValues(t, 2, report.Tenants[0].To)
	require.Equal(t, []string{"a"}, retired)
	row, err := pr.catalog.Get(t.Context(), "a")
	require.NoError(t, err)
	require.EqualValues(t, 2, row.Version)
}

// careless panics with a transaction of its own open, under no ctx that would
// end it before the test does.
type careless struct {
	steps
	ctx context.Context
}

func (c careless) Up(_ context.Context, db *sql.DB, _ int64) ([]migrate.Applied, error) {
	tx, err := db.BeginTx(c.ctx, nil)
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec("INSERT INTO applied VALUES (7)"); err != nil {
		return nil, err
	}
	if _, err := tx.Exec("LOCK TABLE applied"); err != nil {
		return nil, err
	}
	panic("no")
}

// TestFleetMigrationPanicsInTransaction: what the migration has left open is
// rolled back, and locks nothing: the next run migrates the tenant.
func TestFleetMigrationPanicsInTransaction(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	p.start(t, withSteps(steps{target: 1})).create(t, "a")
	pr := p.start(t, func(cfg *catalog.Config) { cfg.Migrator = careless{steps{target: 2}, t.Context()} })
	report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Contains(t, report.Tenants[0].Error, "panicked: no")

	pr = p.start(t, withSteps(steps{target: 2}), func(cfg *catalog.Config) { cfg.Wait = time.Second })
	report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true, Attempts: 1, LockTimeout: time.Second})
	require.NoError(t, err, "%+v", report)
	pr.allAt(t, 2)
}

// TestFleetSlowHookKeepsPlace: OnEvent holds up the run, but not the news that
// its process is alive. Otherwise others would think that it has died.
func TestFleetSlowHookKeepsPlace(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	pr := p.start(t, withSteps(steps{target: 1}))
	pr.create(t, "a")
	inHook, goOn := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	run := p.start(t, withSteps(steps{target: 2})).run(migrate.Options{OnEvent: func(e migrate.Event) {
		if e.Kind == migrate.EventDone {
			close(inHook)
			<-goOn
		}
	}})
	wait(t, "the event", inHook)
	main, err := pr.db.DB()
	require.NoError(t, err)
	until := func() (ms int64) {
		if err := main.QueryRow("SELECT max(until) FROM tenancy_run_members").Scan(&ms); err != nil {
			t.Error(err)
		}
		return ms
	}
	// Longer than a second: by then the news of the progress waits for the hook,
	// and must not hold up this news.
	first := until()
	require.Eventually(t, func() bool { return until() > first+1200 }, bound, 20*time.Millisecond)
	st, err := pr.catalog.Status(t.Context())
	require.NoError(t, err)
	require.Nil(t, st.Runs[0].Ended)
	release()
	_, err = run.end(t)
	require.NoError(t, err)
}

// TestFleetStopsWhileItWaits: a run that has nothing left but to wait for a
// tenant that is being made hears Stop at once, not when that is over.
func TestFleetStopsWhileItWaits(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	p.Lease = time.Minute
	p.start(t, withSteps(steps{target: 1})).create(t, "a")
	seeding, goOn, made := make(chan struct{}), make(chan struct{}), make(chan struct{})
	slow := p.start(t, withSteps(steps{target: 2}), func(cfg *catalog.Config) {
		cfg.Seed = func(context.Context, *gorm.DB, catalog.Tenant) error {
			close(seeding)
			<-goOn
			return nil
		}
	})
	go func() {
		defer close(made)
		if _, err := slow.catalog.Create(context.Background(), "b", catalog.CreateOptions{}); err != nil {
			t.Error(err)
		}
	}()
	defer func() {
		close(goOn)
		<-made
	}()
	wait(t, "that b is made", seeding)
	stop := make(chan struct{})
	done := false
	run := p.start(t, withSteps(steps{target: 2}), func(cfg *catalog.Config) { cfg.Wait = 10 * time.Minute }).run(migrate.Options{
		Stop: stop,
		OnEvent: func(e migrate.Event) {
			switch {
			case e.Kind == migrate.EventDone:
				done = true
			case e.Kind == migrate.EventProgress && done: // it waits by now
				close(stop)
				done = false
			}
		}})
	report, _ := run.end(t)
	require.Equal(t, 1, report.Done)
}
