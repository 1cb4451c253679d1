package tenancygoose_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"testing/fstest"

	"github.com/glebarez/sqlite"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/internal/migratortest"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestMain(m *testing.M) {
	// What an imported package may have registered: a migration that nobody
	// here asked for, and one whose version is that of another.
	fails := func(context.Context, *sql.Tx) error { return errors.New("a migration of the global registry ran") }
	err := goose.SetGlobalMigrations(
		goose.NewGoMigration(1, &goose.GoFunc{RunTx: fails}, nil),
		goose.NewGoMigration(99, &goose.GoFunc{RunTx: fails}, nil))
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

// dialect is goose's name of an engine, and inTx GORM's dialect on it.
func dialect(e migratortest.Engine) goose.Dialect {
	if e.Postgres {
		return goose.DialectPostgres
	}
	return goose.DialectSQLite3
}

func inTx(e migratortest.Engine) func(*sql.Tx) gorm.Dialector {
	return func(tx *sql.Tx) gorm.Dialector {
		if e.Postgres {
			return postgres.New(postgres.Config{Conn: tx})
		}
		return &sqlite.Dialector{Conn: tx}
	}
}

// sqlFiles makes files of the SQL that each applies; names and SQL alternate.
func sqlFiles(namesAndSQL ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(namesAndSQL); i += 2 {
		fsys[namesAndSQL[i]] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + namesAndSQL[i+1] + ";\n")}
	}
	return fsys
}

// three are migrations that build on each other.
func three() fstest.MapFS {
	return sqlFiles(
		"00001_users.sql", "CREATE TABLE users (id integer)",
		"00002_email.sql", "ALTER TABLE users ADD COLUMN email text",
		"00003_first.sql", "INSERT INTO users VALUES (1, 'a@example.com')",
	)
}

func newMigrator(t *testing.T, c tenancygoose.Config) migrate.Migrator {
	t.Helper()
	m, err := tenancygoose.New(c)
	require.NoError(t, err)
	return m
}
