package catalog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// steps is a Migrator of numbered steps. Each writes a row into the table
// applied, which has no constraint: a step that was applied twice shows.
type steps struct {
	target int64
	// before, if set, is called in the transaction of each step.
	before func(ctx context.Context, tx *sql.Tx, version int64) error
	print  string // makes another fingerprint of it
}

func (s steps) Target() (int64, string) {
	return s.target, fmt.Sprintf("steps-%d%s", s.target, s.print)
}

func (s steps) Current(ctx context.Context, db *sql.DB) (int64, error) {
	var v sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT max(version) FROM applied").Scan(&v)
	if err != nil && (strings.Contains(err.Error(), "no such table") || strings.Contains(err.Error(), "42P01")) {
		return 0, nil
	}
	return v.Int64, err
}

func (s steps) Up(ctx context.Context, db *sql.DB, to int64) (applied []migrate.Applied, err error) {
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS applied (version bigint)"); err != nil {
		return nil, err
	}
	current, err := s.Current(ctx, db)
	if err != nil {
		return nil, err
	}
	for v := current + 1; v <= to; v++ {
		if err := s.step(ctx, db, v); err != nil {
			return applied, &migrate.FailedError{Version: v, Name: "step", Err: err}
		}
		applied = append(applied, migrate.Applied{Version: v, Name: "step"})
	}
	return applied, nil
}

func (s steps) step(ctx context.Context, db *sql.DB, v int64) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if s.before != nil {
		if err := s.before(ctx, tx, v); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO applied VALUES (%d)", v)); err != nil {
		return err
	}
	return tx.Commit()
}

func withSteps(s steps) func(*catalog.Config) {
	return func(cfg *catalog.Config) { cfg.Migrator = s }
}

func statuses(r *migrate.Report) map[string]migrate.Status {
	all := map[string]migrate.Status{}
	for _, t := range r.Tenants {
		all[t.Tenant] = t.Status
	}
	return all
}

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

// failing fails in some tenants. They are told by a row of their own.
func failing(of ...string) func(context.Context, *sql.Tx, int64) error {
	return func(ctx context.Context, tx *sql.Tx, version int64) error {
		var name string
		err := tx.QueryRowContext(ctx, "SELECT text FROM notes LIMIT 1").Scan(&name)
		if err != nil {
			return err
		}
		if version == 2 && slices.Contains(of, name) {
			_, err := tx.ExecContext(ctx, "SELECT * FROM missing_"+name)
			return err
		}
		return nil
	}
}

// named creates tenants whose database knows their name.
func (pr *process) named(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		pr.create(t, id)
		require.NoError(t, pr.in(id).Exec("UPDATE notes SET text = ?", id).Error)
	}
}

func makesNotes(ctx context.Context, tx *sql.Tx, version int64) error {
	if version > 1 {
		return nil
	}
	_, err := tx.ExecContext(ctx, "CREATE TABLE notes (text text)")
	if err == nil {
		_, err = tx.ExecContext(ctx, "INSERT INTO notes VALUES ('')")
	}
	return err
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

func TestFleetStop(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t, withSteps(steps{target: 1}))
		for i := range 6 {
			pr.create(t, fmt.Sprint("t", i))
		}
		stop := make(chan struct{})
		var once sync.Once
		pr = p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			once.Do(func() { close(stop) })
			return nil
		}}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{Stop: stop, PerServer: 1})
		require.ErrorIs(t, err, migrate.ErrStopped)
		require.Equal(t, migrate.StatusStopped, report.Status)
		require.Equal(t, 2, report.ExitCode())
		require.NotZero(t, report.Done, "who had his turn ended it")
		require.Equal(t, 6, report.Done+report.Left)

		// The ctx ends what runs too.
		ctx, cancel := context.WithCancel(t.Context())
		pr = p.start(t, withSteps(steps{target: 2, before: func(ctx context.Context, _ *sql.Tx, _ int64) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}}))
		report, err = pr.catalog.MigrateTenants(ctx, migrate.Options{PerServer: 1})
		require.ErrorIs(t, err, migrate.ErrStopped)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, report.Done)
		require.Zero(t, report.Failed)

		pr = p.start(t, withSteps(steps{target: 2}))
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		for _, res := range report.Tenants {
			require.Equal(t, 1, res.Attempts, "one that was cut short does not count")
		}
		pr.allAt(t, 2)
	})
}

func TestFleetHalt(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t, withSteps(steps{target: 1}))
		for i := range 5 {
			pr.create(t, fmt.Sprint("t", i))
		}
		n, err := pr.catalog.HaltMigrations(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, n, "nothing goes on")
		other := p.start(t)
		pr = p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			_, err := other.catalog.HaltMigrations(context.Background(), "support calls")
			return err
		}}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{PerServer: 1})
		if p.Engine == "sqlite" && err != nil {
			require.NotContains(t, err.Error(), "locked")
		}
		require.ErrorIs(t, err, migrate.ErrHalted)
		require.Equal(t, "support calls", report.Reason)
		require.Equal(t, 1, report.Done)
		require.Equal(t, 4, report.Left)
		_, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.ErrorIs(t, err, migrate.ErrHalted)
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true, PerServer: 8})
		require.ErrorIs(t, err, migrate.ErrHalted, "it is halted by each of its tenants")
		require.Less(t, report.Left, 4)
		report, err = p.start(t, withSteps(steps{target: 2})).catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true})
		require.NoError(t, err)
		require.Equal(t, migrate.StatusDone, report.Status)
		pr.allAt(t, 2)
	})
}

// TestFleetNewTenants: a program of yesterday goes on creating tenants.
func TestFleetNewTenants(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		slow := make(chan struct{})
		seeding := make(chan struct{}, 1)
		old := p.start(t, withSteps(steps{target: 1}))
		seeds := p.start(t, withSteps(steps{target: 1}), func(cfg *catalog.Config) {
			cfg.Seed = func(context.Context, *gorm.DB, catalog.Tenant) error {
				seeding <- struct{}{}
				<-slow
				return nil
			}
		})
		old.create(t, "first")
		var begun sync.Once
		created := make(chan error, 1)
		pr := p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			begun.Do(func() {
				old.create(t, "during")
				go func() {
					_, err := seeds.catalog.Create(context.Background(), "late", catalog.CreateOptions{})
					created <- err
				}()
				<-seeding
				time.AfterFunc(300*time.Millisecond, func() { close(slow) }) // the run has nothing else to do by then
			})
			return nil
		}}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		require.NoError(t, <-created)
		require.Equal(t, 3, report.Done, "%+v", report)
		pr.allAt(t, 2)
	})
}
