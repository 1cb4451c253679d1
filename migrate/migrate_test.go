package migrate_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	_ "github.com/glebarez/go-sqlite" // the driver "sqlite"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/migrate"
)

func open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "t.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// makes is a function that adds one row to a table of its own, so that its
// calls can be counted.
func makes(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS calls (n integer)")
	if err == nil {
		_, err = db.ExecContext(ctx, "INSERT INTO calls VALUES (1)")
	}
	return err
}

func calls(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM calls").Scan(&n))
	return n
}

func current(t *testing.T, m migrate.Migrator, db *sql.DB) int64 {
	t.Helper()
	v, err := m.Current(t.Context(), db)
	require.NoError(t, err)
	return v
}

func TestFuncVersions(t *testing.T) {
	t.Parallel()
	db := open(t)
	one, three := migrate.Func(1, makes), migrate.Func(3, makes)
	v, fingerprint := three.Target()
	require.EqualValues(t, 3, v)
	_, other := one.Target()
	require.NotEqual(t, other, fingerprint, "a template of one must not be taken for the other's")

	require.Zero(t, current(t, one, db), "of an empty database")
	applied, err := one.Up(t.Context(), db, 1)
	require.NoError(t, err)
	require.Len(t, applied, 1)
	require.EqualValues(t, 1, applied[0].Version)
	require.EqualValues(t, 1, current(t, one, db))
	require.EqualValues(t, 1, current(t, three, db))

	applied, err = three.Up(t.Context(), db, 3)
	require.NoError(t, err)
	require.Len(t, applied, 1)
	require.EqualValues(t, 3, applied[0].Version)
	require.EqualValues(t, 3, current(t, one, db))
	require.Equal(t, 2, calls(t, db))
}

// What is done must not be done again, nor by an older program.
func TestFuncOnce(t *testing.T) {
	t.Parallel()
	db := open(t)
	m, older := migrate.Func(2, makes), migrate.Func(1, makes)
	for i := range 3 {
		applied, err := m.Up(t.Context(), db, 2)
		require.NoError(t, err)
		require.Equal(t, i == 0, len(applied) == 1)
	}
	applied, err := older.Up(t.Context(), db, 1)
	require.NoError(t, err)
	require.Empty(t, applied)
	require.Equal(t, 1, calls(t, db))
	require.EqualValues(t, 2, current(t, m, db))
}

// What failed must not count as done.
func TestFuncFails(t *testing.T) {
	t.Parallel()
	db := open(t)
	failure := errors.New("no space")
	m := migrate.Func(1, func(context.Context, *sql.DB) error { return failure })
	applied, err := m.Up(t.Context(), db, 1)
	require.ErrorIs(t, err, failure)
	require.Empty(t, applied)
	require.Zero(t, current(t, m, db))
	_, err = migrate.Func(1, makes).Up(t.Context(), db, 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, current(t, m, db))
}

func TestFuncMisused(t *testing.T) {
	t.Parallel()
	db := open(t)
	for _, to := range []int64{0, 1, 3} {
		_, err := migrate.Func(2, makes).Up(t.Context(), db, to)
		require.ErrorContains(t, err, "only 2")
	}
	_, err := migrate.Func(1, nil).Up(t.Context(), db, 1)
	require.ErrorContains(t, err, "no function")
	require.Zero(t, current(t, migrate.Func(2, makes), db), "nothing was done")
}

func TestFuncClosedDatabase(t *testing.T) {
	t.Parallel()
	db := open(t)
	require.NoError(t, db.Close())
	m := migrate.Func(1, makes)
	_, err := m.Current(t.Context(), db)
	require.Error(t, err)
	_, err = m.Up(t.Context(), db, 1)
	require.Error(t, err)
}
