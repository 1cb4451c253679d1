package catalog_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// migrated runs until d is over: a run that never ends is an error here.
func (pr *process) migrated(d time.Duration, opt migrate.Options) (*migrate.Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return pr.catalog.MigrateTenants(ctx, opt)
}

// TestFleetOtherCanaries: canaries that are not among those that are wanted
// have no turn, and nobody waits for one.
func TestFleetOtherCanaries(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	old := p.start(t, withSteps(steps{target: 1}))
	old.create(t, "a")
	old.create(t, "b")
	report, err := p.start(t, withSteps(steps{target: 2})).migrated(10*time.Second, migrate.Options{Only: []string{"a"}, Canaries: []string{"b"}})
	require.NoError(t, err)
	require.Equal(t, 1, report.Done)
}

// TestFleetCanaryComesBack: a canary is moving when all others are done.
func TestFleetCanaryComesBack(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		old := p.start(t, withSteps(steps{target: 1}))
		old.create(t, "a")
		old.create(t, "b")
		old.create(t, "c")
		old.exec(t, "UPDATE tenancy_tenants SET state = 'moving', task = 'rename', lease_owner = 'x', lease_until = 99999999999999 WHERE id = 'b'")
		var once sync.Once
		pr := p.start(t, withSteps(steps{target: 2}))
		report, err := pr.migrated(20*time.Second, migrate.Options{Canaries: []string{"a", "b"}, OnEvent: func(e migrate.Event) {
			if e.Kind == migrate.EventProgress && e.Counts.Done == 1 { // the gate waits
				once.Do(func() {
					old.exec(t, "UPDATE tenancy_tenants SET state = 'active', task = '', lease_owner = '', lease_until = 0, revision = revision + 1 WHERE id = 'b'")
				})
			}
		}})
		require.NoError(t, err)
		require.Equal(t, 3, report.Done)
	})
}

// TestFleetBesideOthers: runs of the fleet and of one tenant don't count its
// attempts out for each other, and all of them end.
func TestFleetBesideOthers(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	old := p.start(t, withSteps(steps{target: 1, before: makesNotes}))
	old.named(t, "a")
	row, err := old.catalog.Get(t.Context(), "a")
	require.NoError(t, err)
	holder := pgtest.Shared(t).Conn(t, row.Database)
	_, err = holder.Exec(t.Context(), "BEGIN; LOCK TABLE notes IN ACCESS SHARE MODE")
	require.NoError(t, err)
	var turns atomic.Int32
	var runs sync.WaitGroup
	for _, only := range [][]string{nil, {"a"}, {"a"}} {
		pr := p.start(t, withSteps(steps{target: 2, before: addsColor(failing())}))
		runs.Go(func() {
			report, err := pr.migrated(30*time.Second, migrate.Options{Only: only, Attempts: 2, Backoff: 50 * time.Millisecond,
				LockTimeout: 50 * time.Millisecond, OnEvent: func(e migrate.Event) {
					if e.Kind == migrate.EventRetry || e.Kind == migrate.EventFailed {
						turns.Add(1)
					}
				}})
			if !errors.Is(err, migrate.ErrIncomplete) {
				t.Error(report, err)
			}
		})
	}
	runs.Wait()
	require.LessOrEqual(t, turns.Load(), int32(6), "2 for each run")
}

// slowWriter takes what a dump writes when it is told to.
type slowWriter struct {
	once        sync.Once
	began, goOn chan struct{}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.began) })
	<-w.goOn
	return len(b), nil
}

// TestFleetSparesDump: a dump holds the table that a migration wants. The
// migration gives up, and not the dump.
func TestFleetSparesDump(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	old := p.start(t, withSteps(steps{target: 1, before: makesNotes}))
	old.named(t, "a")
	// More than fits into the pipes in between.
	require.NoError(t, old.in("a").Exec("INSERT INTO notes SELECT repeat(md5(i::text), 20) FROM generate_series(1, 10000) i").Error)
	w := &slowWriter{began: make(chan struct{}), goOn: make(chan struct{})}
	dumped := make(chan error, 1)
	go func() { dumped <- old.catalog.Dump(context.Background(), "a", w) }()
	<-w.began
	report, err := p.start(t, withSteps(steps{target: 2, before: addsColor(failing())})).migrated(20*time.Second,
		migrate.Options{Attempts: 3, Backoff: 10 * time.Millisecond, LockTimeout: 100 * time.Millisecond})
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Equal(t, "55P03", report.Tenants[0].SQLState)
	require.Equal(t, 3, report.Tenants[0].Attempts)
	close(w.goOn)
	require.NoError(t, <-dumped)
}

// TestFleetHaltOfRetries: what is tried again in some tenants, though the
// migrations are halted, can be halted too.
func TestFleetHaltOfRetries(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	old := p.start(t, withSteps(steps{target: 1}))
	var ids []string
	for i := range 4 {
		ids = append(ids, fmt.Sprint("t", i))
		old.create(t, ids[i])
	}
	old.exec(t, "INSERT INTO tenancy_halts (fingerprint, reason) VALUES ('steps-2', 'broken')")
	var turns atomic.Int32
	pr := p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
		if turns.Add(1) > 1 {
			return nil
		}
		n, err := old.catalog.HaltMigrations(context.Background(), "support calls")
		if n != 1 {
			t.Error("halted", n)
		}
		return err
	}}))
	report, err := pr.migrated(20*time.Second, migrate.Options{Only: ids, Retry: true, PerServer: 1})
	require.ErrorIs(t, err, migrate.ErrStopped)
	require.Equal(t, "support calls", report.Reason)
	require.EqualValues(t, 1, turns.Load())
}

// TestFleetHaltIsLifted: tenants that were tried again one after the other leave
// the halt, until Retry says that all is well.
func TestFleetHaltIsLifted(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	old := p.start(t, withSteps(steps{target: 1}))
	old.create(t, "a")
	old.exec(t, "INSERT INTO tenancy_halts (fingerprint, reason) VALUES ('steps-2', 'broken')")
	pr := p.start(t, withSteps(steps{target: 2}))
	_, err := pr.migrated(10*time.Second, migrate.Options{Only: []string{"a"}, Retry: true})
	require.NoError(t, err)
	st, err := pr.catalog.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, "broken", st.Halted)
	_, err = pr.migrated(10*time.Second, migrate.Options{Retry: true})
	require.NoError(t, err)
	old.create(t, "late")
	_, err = pr.migrated(10*time.Second, migrate.Options{})
	require.NoError(t, err)
}

// TestFleetOnlyRemoved: a tenant that is removed while it alone is wanted is not
// reported as done.
func TestFleetOnlyRemoved(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	old := p.start(t, withSteps(steps{target: 1}))
	old.create(t, "a")
	pr := p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
		old.exec(t, "UPDATE tenancy_tenants SET state = 'deleting', task = 'remove', lease_owner = 'x', lease_until = 0 WHERE id = 'a'")
		return errors.New("no")
	}}))
	report, err := pr.migrated(10*time.Second, migrate.Options{Only: []string{"a"}})
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Equal(t, map[string]migrate.Status{"a": migrate.StatusSkipped}, statuses(report))
}

// TestFleetOperationsWait: what changes a tenant waits while it is migrated, and
// what finds nothing to do does not.
func TestFleetOperationsWait(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		old := p.start(t, withSteps(steps{target: 1}), func(c *catalog.Config) { c.Wait = 300 * time.Millisecond })
		old.create(t, "a")
		before, err := old.catalog.Get(t.Context(), "a")
		require.NoError(t, err)
		began, goOn := make(chan struct{}), make(chan struct{})
		pr := p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			close(began)
			<-goOn
			return nil
		}}))
		done := make(chan error, 1)
		go func() {
			_, err := pr.catalog.MigrateTenants(context.Background(), migrate.Options{})
			done <- err
		}()
		<-began
		ctx, c := t.Context(), old.catalog
		for name, op := range map[string]func() error{
			"suspend": func() error { return c.Suspend(ctx, "a", catalog.SuspendOptions{}) },
			"rename":  func() error { return c.Rename(ctx, "a", "b") },
			"remove":  func() error { _, err := c.Remove(ctx, "a", catalog.RemoveOptions{}); return err },
			"forget":  func() error { _, err := c.Remove(ctx, "a", catalog.RemoveOptions{Forget: true}); return err },
		} {
			require.ErrorIs(t, op(), catalog.ErrBusy, name)
		}
		_, err = c.Create(ctx, "a", catalog.CreateOptions{})
		require.NoError(t, err)
		require.NoError(t, c.Unsuspend(ctx, "a"))
		_, err = c.Restore(ctx, "a", bytes.NewReader(nil), catalog.CreateOptions{})
		require.ErrorIs(t, err, catalog.ErrExists)
		resumed, err := c.Resume(ctx)
		require.NoError(t, err)
		require.Empty(t, resumed.Failed)
		close(goOn)
		require.NoError(t, <-done)
		after, err := c.Get(ctx, "a")
		require.NoError(t, err)
		require.Equal(t, before.Generation, after.Generation)
		pr.allAt(t, 2)
	})
}
