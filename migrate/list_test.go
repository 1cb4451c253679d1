package migrate_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// fleet is a number of databases that no catalog knows.
type fleet struct {
	migrate.List
	dsns tenancy.Static
	open func(t *testing.T, id string) *sql.DB // around everything
}

func ids(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("t%d", i))
	}
	return all
}

func seq(ids []string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

func onEngines(t *testing.T, n int, test func(t *testing.T, f *fleet)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		f := &fleet{dsns: tenancy.Static{}}
		engine := tenancysqlite.Engine{Dir: dir}
		for _, id := range ids(n) {
			require.NoError(t, engine.Create(t.Context(), id+".db"))
			f.dsns[id] = tenancy.Database{DSN: id + ".db"}
		}
		f.List = migrate.List{IDs: seq(ids(n)), Resolver: f.dsns, Engine: engine}
		f.open = func(t *testing.T, id string) *sql.DB {
			return raw(t, "sqlite", filepath.Join(dir, id+".db"))
		}
		test(t, f)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		pg := pgtest.Shared(t)
		f := &fleet{dsns: tenancy.Static{}}
		for _, id := range ids(n) {
			f.dsns[id] = tenancy.Database{DSN: pg.DSN(pg.CreateDatabase(t))}
		}
		f.List = migrate.List{IDs: seq(ids(n)), Resolver: f.dsns, Engine: tenancypg.Engine{}}
		f.open = func(t *testing.T, id string) *sql.DB { return raw(t, "pgx", f.dsns[id].DSN) }
		test(t, f)
	})
}

func raw(t *testing.T, driver, dsn string) *sql.DB {
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// counting is a Func that adds a row for each time that it runs.
func counting(version int64, fail ...string) migrate.Migrator {
	return migrate.Func(version, func(ctx context.Context, db *sql.DB) error {
		if err := makes(ctx, db); err != nil {
			return err
		}
		for _, query := range fail {
			if _, err := db.ExecContext(ctx, query); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	onEngines(t, 5, func(t *testing.T, f *fleet) {
		retired := map[string]int{}
		var mu sync.Mutex
		opt := migrate.Options{Retire: func(id string) {
			mu.Lock()
			defer mu.Unlock()
			retired[id]++
		}}
		report, err := migrate.Run(t.Context(), f, counting(1), migrate.Options{DryRun: true})
		require.NoError(t, err)
		require.Equal(t, 5, report.Left)
		require.Equal(t, migrate.StatusPending, report.Status)

		report, err = migrate.Run(t.Context(), f, counting(1), migrate.Options{Only: []string{"t1", "t3"}})
		require.NoError(t, err)
		require.Equal(t, 2, report.Done)

		report, err = migrate.Run(t.Context(), f, counting(1), opt)
		require.NoError(t, err)
		require.Equal(t, 3, report.Done)
		require.Equal(t, 2, report.UpToDate)
		require.Equal(t, map[string]int{"t0": 1, "t2": 1, "t4": 1}, retired)
		for _, id := range ids(5) {
			require.Equal(t, 1, calls(t, f.open(t, id)))
		}
		report, err = migrate.Run(t.Context(), f, counting(0), opt)
		require.NoError(t, err)
		require.Equal(t, 5, report.Ahead)

		v, err := migrate.Verify(t.Context(), f.Subjects(t.Context()), counting(1), migrate.VerifyOptions{})
		require.NoError(t, err)
		require.Equal(t, 5, v.Checked)
		require.Empty(t, v.Drifts)
		_, err = f.open(t, "t4").Exec("CREATE TABLE more (n integer)")
		require.NoError(t, err)
		v, err = migrate.Verify(t.Context(), f.Subjects(t.Context()), counting(1), migrate.VerifyOptions{})
		require.NoError(t, err)
		require.Len(t, v.Drifts, 1)
		require.Equal(t, "t4", v.Drifts[0].Tenant)
		require.Equal(t, migrate.DriftSchema, v.Drifts[0].Kind)
	})
}

// TestListTogether: several runs at once, of which each tenant is migrated by
// one.
func TestListTogether(t *testing.T) {
	t.Parallel()
	onEngines(t, 6, func(t *testing.T, f *fleet) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := migrate.Run(context.Background(), f, counting(1), migrate.Options{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, id := range ids(6) {
			require.Equal(t, 1, calls(t, f.open(t, id)))
		}
	})
}

func TestListFailures(t *testing.T) {
	t.Parallel()
	onEngines(t, 6, func(t *testing.T, f *fleet) {
		f.Resolver = tenancy.ResolverFunc(func(ctx context.Context, id string) (tenancy.Database, error) {
			if id == "t2" {
				return tenancy.Database{}, tenancy.ErrTenantNotFound
			}
			return f.dsns.Resolve(ctx, id)
		})
		_, err := f.open(t, "t5").Exec("CREATE TABLE there (n integer)")
		require.NoError(t, err)
		report, err := migrate.Run(t.Context(), f, counting(1, "CREATE TABLE there (n integer)"), migrate.Options{})
		require.ErrorIs(t, err, migrate.ErrIncomplete)
		require.Equal(t, 4, report.Done)
		require.Equal(t, 2, report.Failed)
		require.Equal(t, "t2", report.Tenants[0].Tenant)
		require.Contains(t, report.Tenants[0].Error, "not found")
		require.Equal(t, "t5", report.Tenants[1].Tenant)

		// The breaker, after the canary.
		report, err = migrate.Run(t.Context(), f, counting(2, "SELECT * FROM missing"), migrate.Options{PerServer: 1})
		require.ErrorIs(t, err, migrate.ErrHalted)
		require.Equal(t, 3, report.ExitCode())
		require.Equal(t, 2, report.Left)
		report, err = migrate.Run(t.Context(), f, counting(2, "SELECT * FROM missing"), migrate.Options{Canaries: []string{"t4"}})
		require.ErrorIs(t, err, migrate.ErrHalted)
		require.Contains(t, report.Reason, "canary t4")
		require.Equal(t, 4, report.Left)
	})
}

// TestListLocked: who can't have the lock tries again, and says who has it.
func TestListLocked(t *testing.T) {
	t.Parallel()
	onEngines(t, 2, func(t *testing.T, f *fleet) {
		ex, err := f.Engine.LockDatabase(t.Context(), f.dsns["t1"], migrate.Lock{})
		require.NoError(t, err)
		var once sync.Once
		began := time.Now()
		report, err := migrate.Run(t.Context(), f, counting(1), migrate.Options{OnEvent: func(e migrate.Event) {
			if e.Kind == migrate.EventDone {
				once.Do(func() { require.NoError(t, ex.Close()) })
			}
		}})
		require.NoError(t, err)
		require.Equal(t, 2, report.Done)
		require.Less(t, time.Since(began), 8*time.Second)
	})
}

func TestListOfErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("the list is broken")
	f := migrate.List{Resolver: tenancy.Static{}, Engine: tenancysqlite.Engine{}, IDs: func(yield func(string, error) bool) { yield("", broken) }}
	_, err := migrate.Run(t.Context(), f, counting(1), migrate.Options{})
	require.ErrorIs(t, err, broken)
	_, err = migrate.Run(t.Context(), migrate.List{}, counting(1), migrate.Options{})
	require.ErrorContains(t, err, "needs IDs")
	_, err = migrate.Run(t.Context(), f, nil, migrate.Options{})
	require.ErrorContains(t, err, "no Migrator")
	for _, opt := range []migrate.Options{{Workers: -1}, {Backoff: -1}, {DryRun: true, Retry: true}} {
		_, err = migrate.Run(t.Context(), f, counting(1), opt)
		require.ErrorContains(t, err, "migrate: ")
	}
	f.IDs = seq(nil)
	report, err := migrate.Run(t.Context(), f, counting(1), migrate.Options{})
	require.NoError(t, err)
	require.Equal(t, migrate.StatusDone, report.Status)
	var text strings.Builder
	_, err = report.WriteTo(&text)
	require.NoError(t, err)
	require.Contains(t, text.String(), "done: 0 done, to version 1")
}

// TestMainDatabase: of several processes one migrates.
func TestMainDatabase(t *testing.T) {
	t.Parallel()
	onEngines(t, 1, func(t *testing.T, f *fleet) {
		db := f.open(t, "t0")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				res, err := migrate.Main(context.Background(), db, f.Engine, counting(2), migrate.Options{})
				if err != nil || res.To != 2 || res.Status != migrate.StatusDone {
					t.Error(res, err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, calls(t, db))
		res, err := migrate.Main(t.Context(), db, f.Engine, counting(1), migrate.Options{})
		require.NoError(t, err, "a newer program was here")
		require.EqualValues(t, 2, res.To)
		res, err = migrate.Main(t.Context(), db, f.Engine, counting(3, "SELECT * FROM missing"), migrate.Options{})
		require.ErrorContains(t, err, "missing")
		require.Equal(t, migrate.StatusFailed, res.Status)
		require.NoError(t, db.Ping(), "it is open still")
	})
}
