package tenancygormigrate_test

import (
	"database/sql"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/go-gormigrate/gormigrate/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	tenancygormigrate "github.com/gorm-tenancy/tenancy/contrib/gormigrate"
	"github.com/gorm-tenancy/tenancy/internal/migratortest"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

// dialector is GORM's dialect of an engine.
func dialector(e migratortest.Engine) func(*sql.DB) gorm.Dialector {
	return func(db *sql.DB) gorm.Dialector {
		if e.Postgres {
			return postgres.New(postgres.Config{Conn: db})
		}
		return &sqlite.Dialector{Conn: db}
	}
}

// execs is a migration of one statement.
func execs(id, statement string) *gormigrate.Migration {
	return &gormigrate.Migration{ID: id, Migrate: func(tx *gorm.DB) error { return tx.Exec(statement).Error }}
}

// three are migrations that build on each other.
func three() []*gormigrate.Migration {
	return []*gormigrate.Migration{
		execs("users", "CREATE TABLE users (id integer)"),
		execs("email", "ALTER TABLE users ADD COLUMN email text"),
		execs("first", "INSERT INTO users VALUES (1, 'a@example.com')"),
	}
}

func newMigrator(t *testing.T, c tenancygormigrate.Config) migrate.Migrator {
	t.Helper()
	m, err := tenancygormigrate.New(c)
	require.NoError(t, err)
	return m
}

// config is one that New accepts.
func config() tenancygormigrate.Config {
	return tenancygormigrate.Config{
		Migrations: three(),
		Dialector:  func(db *sql.DB) gorm.Dialector { return &sqlite.Dialector{Conn: db} },
	}
}
