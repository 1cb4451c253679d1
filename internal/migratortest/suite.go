package migratortest

import (
	"context"
	"database/sql"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// Step is a migration. It has SQL, or is a function.
type Step struct {
	Name string
	SQL  []string
	// NoTransaction: there is none around the step.
	NoTransaction bool
	// Do is given what runs a statement in the step's transaction.
	Do func(ctx context.Context, exec func(query string) error) error
}

// Three are steps that build on each other.
func Three() []Step {
	return []Step{
		{Name: "users", SQL: []string{"CREATE TABLE users (id integer)"}},
		{Name: "email", SQL: []string{"ALTER TABLE users ADD COLUMN email text"}},
		{Name: "first", SQL: []string{"INSERT INTO users VALUES (1, 'a@example.com')"}},
	}
}

const users = "SELECT count(*) FROM users"

// Make makes a Migrator of steps, whose versions are 1, 2, ...
type Make func(t *testing.T, e Engine, steps ...Step) migrate.Migrator

// Run runs the suite: what a fleet relies on, whatever tool migrates.
func Run(t *testing.T, newMigrator Make) {
	for name, test := range map[string]func(*testing.T, Engine, Make){
		"EmptyToTarget":      emptyToTarget,
		"GoesOnAfterFailure": goesOnAfterFailure,
		"WithoutTransaction": withoutTransaction,
		"CallerGivesUp":      callerGivesUp,
		"Panic":              panics,
		"UnknownVersion":     unknownVersion,
		"Unreachable":        unreachable,
		"CurrentIsCheap":     currentIsCheap,
		"ManyDatabases":      manyDatabases,
	} {
		t.Run(name, func(t *testing.T) {
			Each(t, func(t *testing.T, e Engine) { test(t, e, newMigrator) })
		})
	}
}

func emptyToTarget(t *testing.T, e Engine, newMigrator Make) {
	m := newMigrator(t, e, Three()...)
	db := e.Open(t)
	target, _ := m.Target()
	require.EqualValues(t, 3, target)
	require.Zero(t, Current(t, m, db))

	applied, err := m.Up(t.Context(), db, 2)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2}, Versions(applied))
	require.Contains(t, applied[0].Name, "users")
	require.Positive(t, applied[0].Took)
	require.EqualValues(t, 2, Current(t, m, db))
	require.Zero(t, Count(t, db, users))

	applied, err = m.Up(t.Context(), db, target)
	require.NoError(t, err)
	require.Equal(t, []int64{3}, Versions(applied))
	require.EqualValues(t, 3, Current(t, m, db))

	for _, to := range []int64{1, 3} { // nothing to do
		applied, err = m.Up(t.Context(), db, to)
		require.NoError(t, err)
		require.Empty(t, applied)
	}
	require.Equal(t, 1, Count(t, db, users))
}

// Nothing of a migration that failed half-way may stay, and what came before
// it must.
func goesOnAfterFailure(t *testing.T, e Engine, newMigrator Make) {
	steps := Three()
	steps[2].SQL = []string{"INSERT INTO users VALUES (7, 'b@example.com')", "INSERT INTO nowhere VALUES (1)"}
	db := e.Open(t)
	m := newMigrator(t, e, steps...)
	applied, err := m.Up(t.Context(), db, 3)
	require.ErrorContains(t, err, "nowhere")
	if e.Postgres { // a run judges the failure by it
		require.Equal(t, "42P01", sqlerr.State(err))
	}
	var failed *migrate.FailedError
	require.ErrorAs(t, err, &failed)
	require.EqualValues(t, 3, failed.Version)
	require.Contains(t, failed.Name, "first")
	require.Equal(t, []int64{1, 2}, Versions(applied))
	require.EqualValues(t, 2, Current(t, m, db))
	require.Zero(t, Count(t, db, users))

	Exec(t, db, "CREATE TABLE nowhere (id integer)")
	applied, err = m.Up(t.Context(), db, 3)
	require.NoError(t, err)
	require.Equal(t, []int64{3}, Versions(applied))
	require.Equal(t, 1, Count(t, db, users))
}

func withoutTransaction(t *testing.T, e Engine, newMigrator Make) {
	create := "VACUUM" // which SQLite refuses in a transaction
	if e.Postgres {
		create = "CREATE INDEX CONCURRENTLY users_id ON users (id)"
	}
	db := e.Open(t)
	step := Step{Name: "index", SQL: []string{create}}
	_, err := newMigrator(t, e, append(Three(), step)...).Up(t.Context(), db, 4)
	require.Error(t, err, "or this test shows nothing")
	step.NoTransaction = true
	m := newMigrator(t, e, append(Three(), step)...)
	require.EqualValues(t, 3, Current(t, m, db))
	_, err = m.Up(t.Context(), db, 4)
	require.NoError(t, err)
	require.EqualValues(t, 4, Current(t, m, db))
}

func callerGivesUp(t *testing.T, e Engine, newMigrator Make) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gives := true
	m := newMigrator(t, e, append(Three(), Step{Name: "waits", Do: func(ctx context.Context, exec func(string) error) error {
		if err := exec("DELETE FROM users"); err != nil || !gives {
			return err
		}
		cancel()
		<-ctx.Done() // it is the caller's
		return ctx.Err()
	}})...)
	db := e.Open(t)
	applied, err := m.Up(ctx, db, 4)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, applied, 3)
	require.EqualValues(t, 3, Current(t, m, db))
	require.Equal(t, 1, Count(t, db, users))

	gives = false
	applied, err = m.Up(t.Context(), db, 4)
	require.NoError(t, err)
	require.Equal(t, []int64{4}, Versions(applied))
}

// One tenant's data must not end the process that migrates all of them.
func panics(t *testing.T, e Engine, newMigrator Make) {
	m := newMigrator(t, e, Step{Name: "panics", Do: func(context.Context, func(string) error) error { panic("no such plan") }})
	db := e.Open(t)
	db.SetMaxOpenConns(1) // the transaction's connection must come back
	_, err := m.Up(t.Context(), db, 1)
	require.ErrorContains(t, err, "no such plan")
	require.Zero(t, Current(t, m, db))
}

func unknownVersion(t *testing.T, e Engine, newMigrator Make) {
	m := newMigrator(t, e, Three()...)
	db := e.Open(t)
	for _, to := range []int64{-1, 0, 4} {
		_, err := m.Up(t.Context(), db, to)
		require.ErrorContains(t, err, "the newest is 3")
	}
}

func unreachable(t *testing.T, e Engine, newMigrator Make) {
	m := newMigrator(t, e, Three()...)
	db := e.Open(t)
	require.NoError(t, db.Close())
	_, err := m.Current(t.Context(), db)
	require.Error(t, err, "it must not be taken for an empty one")
	_, err = m.Up(t.Context(), db, 3)
	require.Error(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = m.Current(ctx, e.Open(t))
	require.ErrorIs(t, err, context.Canceled)
}

// Current is asked of each database in turn, also by those who may not write.
func currentIsCheap(t *testing.T, e Engine, newMigrator Make) {
	spy := &Spy{Connector: e.Connector(t)}
	db := Pool(t, spy)
	m := newMigrator(t, e, Three()...)
	require.Zero(t, Current(t, m, db))
	require.LessOrEqual(t, len(spy.Take()), 2)
	tables := "SELECT count(*) FROM sqlite_master"
	if e.Postgres {
		tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
	}
	require.Zero(t, Count(t, db, tables), "it writes nothing")

	_, err := m.Up(t.Context(), db, 3)
	require.NoError(t, err)
	spy.Take()
	require.EqualValues(t, 3, Current(t, m, db))
	require.LessOrEqual(t, len(spy.Take()), 2)
	_, err = m.Up(t.Context(), db, 3)
	require.NoError(t, err)
	require.LessOrEqual(t, len(spy.Take()), 2, "with nothing to do, Up is as cheap as Current")
}

// For the race detector: tenants share the Migrator, and its functions.
func manyDatabases(t *testing.T, e Engine, newMigrator Make) {
	m := newMigrator(t, e, append(Three(), Step{Name: "second", Do: func(_ context.Context, exec func(string) error) error {
		return exec("INSERT INTO users VALUES (2, 'b@example.com')")
	}})...)
	dbs := make([]*sql.DB, 5)
	for i := range dbs {
		dbs[i] = e.Open(t)
	}
	errs := make([]error, len(dbs))
	var wg sync.WaitGroup
	for i, db := range dbs {
		wg.Go(func() {
			if _, errs[i] = m.Current(t.Context(), db); errs[i] == nil {
				_, errs[i] = m.Up(t.Context(), db, 4)
			}
		})
	}
	wg.Wait()
	for i, db := range dbs {
		require.NoError(t, errs[i])
		require.Equal(t, 2, Count(t, db, users))
		require.EqualValues(t, 4, Current(t, m, db))
	}
}
