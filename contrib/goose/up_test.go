package tenancygoose_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestUpBringsAnEmptyDatabaseToTheTarget(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: three()})
		db := e.open(t)
		target, _ := m.Target()
		require.EqualValues(t, 3, target)
		require.Zero(t, current(t, m, db))

		applied, err := m.Up(t.Context(), db, 2)
		require.NoError(t, err)
		require.Equal(t, []int64{1, 2}, versions(applied))
		require.Equal(t, "00001_users.sql", applied[0].Name)
		require.Positive(t, applied[0].Took)
		require.EqualValues(t, 2, current(t, m, db))
		require.Zero(t, count(t, db, "SELECT count(*) FROM users"))

		applied, err = m.Up(t.Context(), db, target)
		require.NoError(t, err)
		require.Equal(t, []int64{3}, versions(applied))
		require.EqualValues(t, 3, current(t, m, db))

		for _, to := range []int64{1, 3} { // nothing to do
			applied, err = m.Up(t.Context(), db, to)
			require.NoError(t, err)
			require.Empty(t, applied)
		}
		require.Equal(t, 1, count(t, db, "SELECT count(*) FROM users"))
	})
}

// Nothing of a migration that failed half-way may stay, and what came before
// it must.
func TestUpGoesOnAfterAFailure(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		bad := three()
		bad["00003_first.sql"].Data = []byte("-- +goose Up\nINSERT INTO users VALUES (7, 'b@example.com');\nINSERT INTO nowhere VALUES (1);\n")
		db := e.open(t)
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: bad})
		applied, err := m.Up(t.Context(), db, 3)
		require.ErrorContains(t, err, "nowhere")
		if e.dialect == goose.DialectPostgres { // tenancy.Engine's Classify looks for it
			var pg interface{ SQLState() string }
			require.ErrorAs(t, err, &pg)
			require.Equal(t, "42P01", pg.SQLState())
		}
		var failed *migrate.FailedError
		require.ErrorAs(t, err, &failed)
		require.EqualValues(t, 3, failed.Version)
		require.Equal(t, "00003_first.sql", failed.Name)
		require.Equal(t, []int64{1, 2}, versions(applied))
		require.EqualValues(t, 2, current(t, m, db))
		require.Zero(t, count(t, db, "SELECT count(*) FROM users"))

		exec(t, db, "CREATE TABLE nowhere (id integer)")
		applied, err = m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, []int64{3}, versions(applied))
		require.Equal(t, 1, count(t, db, "SELECT count(*) FROM users"))
	})
}

func TestUpWithoutATransaction(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		create := "CREATE INDEX CONCURRENTLY users_id ON users (id)"
		if e.dialect == goose.DialectSQLite3 {
			create = "VACUUM" // which is refused in a transaction, too
		}
		fsys := three()
		fsys["00004_index.sql"] = sqlFiles("x", create)["x"]
		fsys["00004_index.sql"].Data = append([]byte("-- +goose NO TRANSACTION\n"), fsys["00004_index.sql"].Data...)
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: fsys})
		db := e.open(t)
		applied, err := m.Up(t.Context(), db, 4)
		require.NoError(t, err)
		require.Len(t, applied, 4)
		require.EqualValues(t, 4, current(t, m, db))
	})
}

func TestUpWhenTheCallerGivesUp(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		fsys := three()
		stop := true
		gives := goose.NewGoMigration(4, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "DELETE FROM users"); err != nil {
				return err
			}
			if stop {
				cancel()
				<-ctx.Done()
			}
			return ctx.Err()
		}}, nil)
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: fsys, Go: []*goose.Migration{gives}})
		db := e.open(t)
		applied, err := m.Up(ctx, db, 4)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, applied, 3)
		require.EqualValues(t, 3, current(t, m, db))
		require.Equal(t, 1, count(t, db, "SELECT count(*) FROM users"))

		stop = false
		applied, err = m.Up(t.Context(), db, 4)
		require.NoError(t, err)
		require.Equal(t, []int64{4}, versions(applied))
	})
}

// One tenant's data must not end the process that migrates all of them.
func TestUpSurvivesAPanic(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		panics := goose.NewGoMigration(1, &goose.GoFunc{RunTx: func(context.Context, *sql.Tx) error { panic("no such plan") }}, nil)
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, Go: []*goose.Migration{panics}})
		db := e.open(t)
		_, err := m.Up(t.Context(), db, 1)
		require.ErrorContains(t, err, "no such plan")
		require.Zero(t, current(t, m, db))
	})
}

func TestUpToAnUnknownVersion(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: three()})
		db := e.open(t)
		for _, to := range []int64{-1, 0, 4} {
			_, err := m.Up(t.Context(), db, to)
			require.ErrorContains(t, err, "the newest is 3")
		}
	})
}

func TestAMigrationThatWasAddedLater(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		all := three()
		all["00002_email.sql"].Data = []byte("-- +goose Up\nCREATE TABLE emails (id integer);\n")
		all["00003_first.sql"].Data = []byte("-- +goose Up\nINSERT INTO users VALUES (1);\n")
		before := three()
		delete(before, "00002_email.sql")
		before["00003_first.sql"] = all["00003_first.sql"]
		db := e.open(t)
		_, err := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: before}).Up(t.Context(), db, 3)
		require.NoError(t, err)

		strict := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: all})
		require.EqualValues(t, 1, current(t, strict, db), "at the target, nobody would call Up")
		_, err = strict.Up(t.Context(), db, 3)
		require.ErrorContains(t, err, "has not had migration 2")
		require.ErrorContains(t, err, "AllowMissing")

		lenient := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: all, AllowMissing: true})
		require.EqualValues(t, 1, current(t, lenient, db))
		applied, err := lenient.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, []int64{2}, versions(applied))
		require.EqualValues(t, 3, current(t, lenient, db))
		require.EqualValues(t, 3, current(t, strict, db))
	})
}

// A squashed first migration leaves databases with versions that no file has.
func TestOldVersionsWithoutAFile(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		db := e.open(t)
		_, err := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: three()}).Up(t.Context(), db, 2)
		require.NoError(t, err)
		last := three()
		delete(last, "00001_users.sql")
		delete(last, "00002_email.sql")
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: last})
		require.EqualValues(t, 2, current(t, m, db))
		_, err = m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.EqualValues(t, 3, current(t, m, db))
	})
}

func TestADatabaseThatCantBeReached(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: three()})
		db := e.open(t)
		require.NoError(t, db.Close())
		_, err := m.Current(t.Context(), db)
		require.Error(t, err, "it must not be taken for an empty one")
		_, err = m.Up(t.Context(), db, 3)
		require.Error(t, err)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = m.Current(ctx, e.open(t))
		require.True(t, errors.Is(err, context.Canceled), err)
	})
}

func TestAnotherTable(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygoose.Config{Dialect: e.dialect, FS: three(), Table: "app_versions"})
		db := e.open(t)
		_, err := m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, 4, count(t, db, "SELECT count(*) FROM app_versions"))
		require.EqualValues(t, 3, current(t, m, db))
	})
}
