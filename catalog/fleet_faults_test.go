package catalog_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// addsColor is a second step that needs the table to itself.
func addsColor(before func(ctx context.Context, tx *sql.Tx, version int64) error) func(context.Context, *sql.Tx, int64) error {
	return func(ctx context.Context, tx *sql.Tx, version int64) error {
		if err := before(ctx, tx, version); err != nil || version != 2 {
			return err
		}
		_, err := tx.ExecContext(ctx, "ALTER TABLE notes ADD COLUMN color text")
		return err
	}
}

// TestFleetFaults: one tenant fails, one has a table that somebody holds, one
// is removed meanwhile, one server is down. The rest goes on, and the next run
// finishes.
func TestFleetFaults(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	pg2 := p.addServer(t, "s2")
	old := p.start(t, withSteps(steps{target: 1, before: makesNotes}))
	for _, id := range []string{"fails", "locked", "removed", "well", "far1", "far2"} {
		server := "s1"
		if id[:3] == "far" {
			server = "s2"
		}
		_, err := old.catalog.Create(t.Context(), id, catalog.CreateOptions{Server: server})
		require.NoError(t, err)
		require.NoError(t, old.in(id).Exec("UPDATE notes SET text = ?", id).Error)
	}
	row, err := old.catalog.Get(t.Context(), "locked")
	require.NoError(t, err)
	holder := pgtest.Shared(t).Conn(t, row.Database)
	_, err = holder.Exec(t.Context(), "BEGIN; LOCK TABLE notes IN ACCESS SHARE MODE")
	require.NoError(t, err)
	pg2.Kill()

	var once sync.Once
	removed := make(chan error, 1)
	var kinds []migrate.EventKind
	opt := migrate.Options{
		PerServer: 1, Attempts: 2, Backoff: 10 * time.Millisecond, LockTimeout: 200 * time.Millisecond, Patience: 500 * time.Millisecond,
		Canaries: []string{"well"},
		AfterCanaries: func(context.Context, []migrate.Result) error { // it has not had its turn
			once.Do(func() {
				_, err := old.catalog.Remove(context.Background(), "removed", catalog.RemoveOptions{})
				removed <- err
			})
			return nil
		},
		OnEvent: func(e migrate.Event) { kinds = append(kinds, e.Kind) },
	}
	pr := p.start(t, withSteps(steps{target: 2, before: addsColor(failing("fails"))}))
	report, err := pr.catalog.MigrateTenants(t.Context(), opt)
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.NoError(t, <-removed)
	require.Equal(t, 2, report.ExitCode())
	require.Equal(t, map[string]migrate.Status{"fails": migrate.StatusFailed, "locked": migrate.StatusFailed,
		"well": migrate.StatusDone, "far1": migrate.StatusSkipped, "far2": migrate.StatusSkipped}, statuses(report))
	byName := map[string]migrate.Result{}
	for _, res := range report.Tenants {
		byName[res.Tenant] = res
	}
	require.Equal(t, "42P01", byName["fails"].SQLState)
	require.Equal(t, "55P03", byName["locked"].SQLState, "the application's own statements queue up no longer than that")
	require.Equal(t, 2, byName["locked"].Attempts)
	require.Contains(t, byName["far1"].Error, "server s2 can't be reached")
	require.Zero(t, byName["far1"].Attempts, "what is the server's fault does not count")
	for _, kind := range []migrate.EventKind{migrate.EventServerDown, migrate.EventServerLeft, migrate.EventRetry, migrate.EventCanaries} {
		require.Contains(t, kinds, kind)
	}
	row, err = pr.catalog.Get(t.Context(), "locked")
	require.NoError(t, err)
	require.Empty(t, row.Attention, "it can go away by itself")

	var text bytes.Buffer
	_, err = report.WriteTo(&text)
	require.NoError(t, err)
	require.Contains(t, text.String(), "partial: 1 done, 2 failed, 2 skipped")
	require.Contains(t, text.String(), "failed fails on s1: version 1")
	encoded, err := json.Marshal(report)
	require.NoError(t, err)
	var back migrate.Report
	require.NoError(t, json.Unmarshal(encoded, &back))
	require.Equal(t, report.Tenants, back.Tenants)

	_, err = holder.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	pg2.Restart()
	pr = p.start(t, withSteps(steps{target: 2, before: addsColor(failing())}))
	report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true})
	require.NoError(t, err)
	require.Equal(t, 4, report.Done)
	require.Equal(t, 1, report.UpToDate)
	pr.allAt(t, 2)
}

// TestFleetServerComesBack: a server is frozen in the middle of a run, and its
// tenants have their turns when it answers again.
func TestFleetServerComesBack(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	pg2 := p.addServer(t, "s2")
	old := p.start(t, withSteps(steps{target: 1}))
	for i := range 4 {
		_, err := old.catalog.Create(t.Context(), fmt.Sprint("t", i), catalog.CreateOptions{Server: "s2"})
		require.NoError(t, err)
	}
	pg2.Kill()
	pr := p.start(t, withSteps(steps{target: 2}))
	var kinds []migrate.EventKind
	report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{OnEvent: func(e migrate.Event) {
		kinds = append(kinds, e.Kind)
		if e.Kind == migrate.EventServerDown {
			pg2.Restart()
		}
	}})
	require.NoError(t, err)
	require.Equal(t, 4, report.Done)
	require.Contains(t, kinds, migrate.EventServerUp)
	for _, res := range report.Tenants {
		require.Equal(t, 1, res.Attempts)
	}
	pr.allAt(t, 2)
}

// TestFleetNothingToDo: it is asked once, whatever the number of tenants, and
// by who may do no more than that.
func TestFleetNothingToDo(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t, withSteps(steps{target: 2}))
		pr.create(t, "a")
		pr.create(t, "b")
		counting, asked := pr.onCounted(t, catalog.Config{Migrator: steps{target: 2}})
		report, err := counting.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		require.Equal(t, 2, report.UpToDate)
		require.Equal(t, 1, asked())
	})
}

func TestVerify(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t, withSteps(steps{target: 1, before: makesNotes}))
		pr.createAll(t, "a", "b", "c", "d", "gone")
		require.NoError(t, pr.catalog.Suspend(t.Context(), "d", catalog.SuspendOptions{}))
		v, err := pr.catalog.Verify(t.Context(), catalog.Filter{}, migrate.VerifyOptions{})
		require.NoError(t, err)
		require.Equal(t, 5, v.Checked)
		require.Empty(t, v.Drifts)

		admin := func(id, query string) {
			row, err := pr.catalog.Get(t.Context(), id)
			require.NoError(t, err)
			s, err := pr.servers[row.Server].Session(t.Context(), row.Database, false)
			require.NoError(t, err)
			defer s.Close() //nolint:errcheck // a test's
			db, err := s.DB(t.Context())
			require.NoError(t, err)
			defer db.Close() //nolint:errcheck // a test's
			_, err = db.Exec(query)
			require.NoError(t, err)
		}
		admin("b", "ALTER TABLE notes ADD COLUMN hotfix text")
		admin("c", "INSERT INTO applied VALUES (2)") // migrated around the catalog
		row, err := pr.catalog.Get(t.Context(), "gone")
		require.NoError(t, err)
		s, err := pr.servers[row.Server].Session(t.Context(), row.Database, false)
		require.NoError(t, err)
		require.NoError(t, s.Drop(t.Context()))
		require.NoError(t, s.Close())

		v, err = pr.catalog.Verify(t.Context(), catalog.Filter{}, migrate.VerifyOptions{})
		require.NoError(t, err)
		kinds := map[string][]migrate.DriftKind{}
		for _, d := range v.Drifts {
			kinds[d.Tenant] = append(kinds[d.Tenant], d.Kind)
		}
		require.Equal(t, map[string][]migrate.DriftKind{
			"b":    {migrate.DriftSchema},
			"c":    {migrate.DriftVersion, migrate.DriftBook},
			"gone": {migrate.DriftUnreachable},
		}, kinds, "%+v", v.Drifts)
		corrected, err := pr.catalog.Correct(t.Context(), v)
		require.NoError(t, err)
		require.Len(t, corrected, 1)
		require.Equal(t, "c", corrected[0].ID)
		require.EqualValues(t, 2, corrected[0].Version)
		st, err := pr.catalog.Status(t.Context())
		require.NoError(t, err)
		require.Zero(t, st.Behind)
		require.Contains(t, st.Versions, catalog.VersionCount{Server: "s1", State: catalog.Active, Version: 2, Tenants: 1})
	})
}

// TestInvalidIndex: what an interrupted CREATE INDEX CONCURRENTLY leaves.
func TestInvalidIndex(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	pr := p.start(t, withSteps(steps{target: 1, before: makesNotes}))
	row := pr.create(t, "a")
	conn := pgtest.Shared(t).Conn(t, row.Database)
	_, err := conn.Exec(t.Context(), "INSERT INTO notes VALUES ('')")
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "CREATE UNIQUE INDEX CONCURRENTLY twice ON notes (text)")
	require.Error(t, err)
	v, err := pr.catalog.Verify(t.Context(), catalog.Filter{}, migrate.VerifyOptions{})
	require.NoError(t, err)
	require.Len(t, v.Drifts, 1)
	require.Equal(t, migrate.DriftIndex, v.Drifts[0].Kind)
	require.Contains(t, v.Drifts[0].Detail, "twice")
}

// TestMigrateOnOpen: an application brings a tenant forward when it is wanted.
func TestMigrateOnOpen(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		old := p.start(t, withSteps(steps{target: 1, before: makesNotes}))
		old.named(t, "a", "b", "c")
		pr := p.start(t, withSteps(steps{target: 2, before: failing("c")}))
		strict := pr.withSchema(t, tenancy.SchemaRange{Min: 2})
		require.ErrorIs(t, strict("a").Exec("SELECT 1").Error, tenancy.ErrTenantBehind)
		eager := pr.withSchema(t, tenancy.SchemaRange{Min: 2, Migrate: pr.catalog.MigrateTenant})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := eager([]string{"a", "b"}[i%2]).Exec("SELECT 1").Error; err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		err := eager("c").Exec("SELECT 1").Error
		require.ErrorIs(t, err, tenancy.ErrTenantBehind)
		require.ErrorContains(t, err, "missing_c")
		pr.allAt(t, 2, "c")
		require.NoError(t, strict("a").Exec("SELECT 1").Error)
	})
}

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		for _, id := range []string{"a", "b", "c"} {
			_, err := pr.catalog.Create(t.Context(), id, catalog.CreateOptions{Labels: map[string]string{"plan": "pro"}})
			require.NoError(t, err)
		}
		pr.create(t, "free")
		sweep := func(fail string) (turns []string, err error) {
			ids := pr.catalog.IDs(t.Context(), catalog.Filter{Labels: map[string]string{"plan": "pro"}})
			err = tenancy.Each(t.Context(), pr.db, ids, tenancy.EachOptions{Checkpoint: pr.catalog.Checkpoint("invoices")},
				func(ctx context.Context, id string, db *gormDB) error {
					turns = append(turns, id)
					if id == fail {
						return fmt.Errorf("no paper")
					}
					return db.Create(&Note{Text: "invoice"}).Error
				})
			slices.Sort(turns)
			return turns, err
		}
		turns, err := sweep("b")
		require.ErrorContains(t, err, "no paper")
		require.Equal(t, []string{"a", "b", "c"}, turns)
		turns, err = sweep("")
		require.NoError(t, err)
		require.Equal(t, []string{"b"}, turns, "the others have had theirs")
		_, err = pr.catalog.Remove(t.Context(), "a", catalog.RemoveOptions{})
		require.NoError(t, err)
		_, err = pr.catalog.Create(t.Context(), "a", catalog.CreateOptions{Labels: map[string]string{"plan": "pro"}})
		require.NoError(t, err)
		turns, err = sweep("")
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, turns, "it is another tenant")
		for _, id := range []string{"a", "b", "c"} {
			require.Equal(t, []string{"invoice"}, pr.notes(t, id))
		}
		require.NoError(t, pr.catalog.Checkpoint("invoices").Forget(t.Context()))
		turns, err = sweep("")
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b", "c"}, turns)
	})
}

// TestFleetRetiresPools: connections that remember plans of the old schema are
// given up, in processes that only heard of it.
func TestFleetRetiresPools(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	app := p.start(t, withSteps(steps{target: 1, before: makesNotes}))
	app.create(t, "a")
	read := func() error {
		return app.in("a").Transaction(func(tx *gormDB) error { return tx.Exec("SELECT * FROM notes").Error })
	}
	require.NoError(t, read())
	require.NoError(t, read(), "its plan is remembered")
	other := p.start(t, withSteps(steps{target: 2, before: addsColor(failing())}))
	_, err := other.catalog.MigrateTenants(t.Context(), migrate.Options{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return app.plugin.Stats().Evicted[tenancy.CauseChanged] > 0 }, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, read())
}

// TestFleetDumpMeanwhile: what looks at a tenant that is being migrated leaves
// the migration alone.
func TestFleetDumpMeanwhile(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	other := p.start(t, withSteps(steps{target: 1}))
	other.create(t, "a")
	var dumped bytes.Buffer
	pr := p.start(t, withSteps(steps{target: 2, before: func(ctx context.Context, _ *sql.Tx, _ int64) error {
		if _, err := other.catalog.Audit(ctx); err != nil {
			return err
		}
		if _, err := other.catalog.Verify(ctx, catalog.Filter{}, migrate.VerifyOptions{}); err != nil {
			return err
		}
		return other.catalog.Dump(ctx, "a", &dumped)
	}}))
	report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
	require.NoError(t, err)
	require.Equal(t, 1, report.Tenants[0].Attempts)
	require.NotZero(t, dumped.Len())
	pr.allAt(t, 2)
}
