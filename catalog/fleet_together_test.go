package catalog_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// TestFleetEndedMeanwhile: a process was silent for longer than its lease, and
// others have ended the run with work left. It ends too, and says why: nobody
// else would give out what is left.
func TestFleetEndedMeanwhile(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		p.Lease = time.Minute // it is not renewed while the test makes it run out
		pr := p.start(t, withSteps(steps{target: 1}))
		for i := range 3 {
			pr.create(t, fmt.Sprint("t", i))
		}
		g := newGate()
		defer g.open()
		silent := p.start(t, withSteps(steps{target: 2, before: g.pass})).run(migrate.Options{PerServer: 1})
		wait(t, "its first turn", g.reached)
		pr.exec(t, "UPDATE tenancy_run_members SET until = 1")

		// Another one begins the run anew, and gives it up at once.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, err := p.start(t, withSteps(steps{target: 2})).catalog.MigrateTenants(ctx, migrate.Options{OnEvent: func(e migrate.Event) {
			if e.Kind == migrate.EventBegun {
				cancel()
			}
		}})
		require.ErrorIs(t, err, migrate.ErrStopped)

		g.open()
		report, err := silent.end(t)
		require.ErrorIs(t, err, migrate.ErrStopped)
		require.Contains(t, report.Reason, "nobody was at it any more")
		require.Equal(t, 1, report.Done, "it ended the turn that it had")
		require.Equal(t, 2, report.Left)
	})
}

// TestFleetJoinsWhileLastLeaves: one process leaves a run, and is the last that
// is known, while another one joins it. The run must not be closed under the one
// that joins.
func TestFleetJoinsWhileLastLeaves(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	pr := p.start(t, withSteps(steps{target: 1}))
	for i := range 3 {
		pr.create(t, fmt.Sprint("t", i))
	}
	g := newGate()
	defer g.open()
	first := p.start(t, withSteps(steps{target: 2, before: g.pass})).run(migrate.Options{PerServer: 1})
	wait(t, "its first turn", g.reached)

	// Who joins is held up in the middle of that, by a lock of the test's.
	main, err := pr.db.DB()
	require.NoError(t, err)
	holder, err := main.Conn(t.Context())
	require.NoError(t, err)
	defer holder.Close() //nolint:errcheck // a test's
	_, err = holder.ExecContext(t.Context(), `SELECT pg_advisory_lock(4711);
		CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$;
		CREATE TRIGGER slowly BEFORE INSERT ON tenancy_run_members FOR EACH ROW EXECUTE FUNCTION slowly()`)
	require.NoError(t, err)
	second := p.start(t, withSteps(steps{target: 2})).run(migrate.Options{})
	waiters := func(kind string) func() bool {
		return func() bool {
			var n int
			err := holder.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity USING (pid)"+
				" WHERE NOT granted AND locktype = '"+kind+"' AND datname = current_database()").Scan(&n)
			return err == nil && n > 0
		}
	}
	require.Eventually(t, waiters("advisory"), bound, 5*time.Millisecond)

	first.cancel()
	g.open()
	require.Eventually(t, func() bool {
		select {
		case <-first.ended: // which it must not, but then the run below says so
			return true
		default:
			return waiters("transactionid")()
		}
	}, bound, 5*time.Millisecond)
	_, err = holder.ExecContext(t.Context(), "SELECT pg_advisory_unlock(4711)")
	require.NoError(t, err)
	_, err = first.end(t)
	require.ErrorIs(t, err, migrate.ErrStopped)
	report, err := second.end(t)
	require.NoError(t, err)
	require.Equal(t, 3, report.Done)
	pr.allAt(t, 2)
}

// TestFleetLaterProgramTakesOver: of two programs with other migrations, the one
// that begins later goes on and the other ends, so that they don't try the same
// tenants in turn for ever. An older program does not even begin.
func TestFleetLaterProgramTakesOver(t *testing.T) {
	t.Parallel()
	for _, later := range []steps{{target: 3}, {target: 2, print: "mended"}} {
		t.Run(fmt.Sprint(later.target, later.print), func(t *testing.T) {
			t.Parallel()
			onEngines(t, func(t *testing.T, p place) {
				ids := []string{"a", "b", "c"}
				p.start(t, withSteps(steps{target: 1, before: makesNotes})).named(t, ids...)
				g, n := newGate(), &turns{}
				defer g.open()
				fails := failing("a") // for both
				old := steps{target: 2, before: func(ctx context.Context, tx *sql.Tx, v int64) error {
					_ = g.pass(ctx, tx, v)
					return fails(ctx, tx, v)
				}}
				first := p.start(t, withSteps(old)).run(migrate.Options{PerServer: 1, OnEvent: n.count})
				wait(t, "its first turn", g.reached)

				begun, goOn := make(chan struct{}), make(chan struct{})
				later := steps{target: later.target, print: later.print, before: fails}
				pr := p.start(t, withSteps(later))
				second := pr.run(migrate.Options{PerServer: 1, OnEvent: func(e migrate.Event) {
					n.count(e)
					if e.Kind == migrate.EventBegun {
						close(begun)
						select {
						case <-goOn:
						case <-time.After(bound):
						}
					}
				}})
				wait(t, "that it begins", begun)
				g.open()
				report, err := first.end(t)
				require.ErrorIs(t, err, migrate.ErrStopped)
				require.Contains(t, report.Reason, "have taken its place")
				if later.target > old.target {
					report, err = p.start(t, withSteps(old)).catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true, OnEvent: n.count})
					require.ErrorIs(t, err, migrate.ErrStopped)
					require.Contains(t, report.Reason, "a newer program")
					require.Empty(t, report.Run, "it did not begin")
				}
				close(goOn)
				report, err = second.end(t)
				require.ErrorIs(t, err, migrate.ErrIncomplete)
				require.Equal(t, 2, report.Done)
				require.Equal(t, 1, report.Failed)
				n.most(t, 2, ids...)
				pr.allAt(t, later.target, "a")
			})
		})
	}
}

// TestFleetProgramsAtOnce: two programs begin at the same time, in whatever
// order. The newer one brings all tenants to its target, and neither goes on
// for ever.
func TestFleetProgramsAtOnce(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		ids := []string{"a", "b", "c", "d"}
		p.start(t, withSteps(steps{target: 1, before: makesNotes})).named(t, ids...)
		n := &turns{}
		older, newer := p.start(t, withSteps(steps{target: 2})), p.start(t, withSteps(steps{target: 3}))
		runs := []*running{older.run(migrate.Options{OnEvent: n.count}), newer.run(migrate.Options{OnEvent: n.count})}
		if _, err := runs[0].end(t); err != nil {
			require.ErrorIs(t, err, migrate.ErrStopped)
		}
		_, err := runs[1].end(t)
		require.NoError(t, err)
		n.most(t, 2, ids...)
		newer.allAt(t, 3)
	})
}
