package tenancygoose_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/internal/migratortest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestSuite(t *testing.T) {
	migratortest.Run(t, func(t *testing.T, e migratortest.Engine, steps ...migratortest.Step) migrate.Migrator {
		c := tenancygoose.Config{Dialect: dialect(e)}
		files := fstest.MapFS{}
		for i, s := range steps {
			if s.Do != nil {
				c.Go = append(c.Go, goose.NewGoMigration(int64(i+1), &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
					return s.Do(ctx, func(query string) error {
						_, err := tx.ExecContext(ctx, query)
						return err
					})
				}}, nil))
				continue
			}
			text := "-- +goose Up\n" + strings.Join(s.SQL, ";\n") + ";\n"
			if s.NoTransaction {
				text = "-- +goose NO TRANSACTION\n" + text
			}
			files[fmt.Sprintf("%05d_%s.sql", i+1, s.Name)] = &fstest.MapFile{Data: []byte(text)}
		}
		if c.FS = files; len(files) == 0 {
			c.FS = nil
		}
		return newMigrator(t, c)
	})
}

func TestAMigrationThatWasAddedLater(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		all := three()
		all["00002_email.sql"].Data = []byte("-- +goose Up\nCREATE TABLE emails (id integer);\n")
		all["00003_first.sql"].Data = []byte("-- +goose Up\nINSERT INTO users VALUES (1);\n")
		before := three()
		delete(before, "00002_email.sql")
		before["00003_first.sql"] = all["00003_first.sql"]
		db := e.Open(t)
		_, err := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: before}).Up(t.Context(), db, 3)
		require.NoError(t, err)

		strict := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: all})
		require.EqualValues(t, 1, migratortest.Current(t, strict, db), "at the target, nobody would call Up")
		_, err = strict.Up(t.Context(), db, 3)
		require.ErrorContains(t, err, "has not had migration 2")
		require.ErrorContains(t, err, "AllowMissing")

		lenient := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: all, AllowMissing: true})
		require.EqualValues(t, 1, migratortest.Current(t, lenient, db))
		applied, err := lenient.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, []int64{2}, migratortest.Versions(applied))
		require.EqualValues(t, 3, migratortest.Current(t, lenient, db))
		require.EqualValues(t, 3, migratortest.Current(t, strict, db))
	})
}

// A squashed first migration leaves databases with versions that no file has.
func TestOldVersionsWithoutAFile(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		db := e.Open(t)
		_, err := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: three()}).Up(t.Context(), db, 2)
		require.NoError(t, err)
		last := three()
		delete(last, "00001_users.sql")
		delete(last, "00002_email.sql")
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: last})
		require.EqualValues(t, 2, migratortest.Current(t, m, db))
		_, err = m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.EqualValues(t, 3, migratortest.Current(t, m, db))
	})
}

func TestAnotherTable(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: three(), Table: "app_versions"})
		db := e.Open(t)
		_, err := m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, 4, migratortest.Count(t, db, "SELECT count(*) FROM app_versions"))
		require.EqualValues(t, 3, migratortest.Current(t, m, db))
	})
}
