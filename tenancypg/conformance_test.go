package tenancypg_test

import (
	"database/sql"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancytest/enginetest"
)

const clerkPassword = "clerk's own" // escaped in a URL

// TestConformance: the engine keeps what its interfaces promise, with a role
// that has to show its password.
func TestConformance(t *testing.T) {
	for _, k := range []string{"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSERVICE", "PGTZ", "PGOPTIONS"} {
		t.Setenv(k, "")
	}
	pg := pgtest.Start(t, pgtest.HBA("host all clerk 127.0.0.1/32 scram-sha-256"))
	pg.Exec(t, "postgres", `CREATE ROLE clerk LOGIN PASSWORD 'clerk''s own'`)
	enginetest.Run(t, enginetest.Config{
		Engine: tenancypg.Engine{},
		Create: func(tb testing.TB) string {
			name := pg.CreateDatabase(tb)
			pg.Exec(tb, "postgres", "ALTER DATABASE "+name+" OWNER TO clerk")
			return name
		},
		Open: func(tb testing.TB, name string) *sql.DB {
			cfg, err := pgx.ParseConfig(clerkDSN(enginetest.Place{Addr: pg.Addr(), Database: name, Password: clerkPassword}))
			require.NoError(tb, err)
			return stdlib.OpenDB(*cfg)
		},
		DSN:       clerkDSN,
		Dialector: func(db *sql.DB) gorm.Dialector { return postgres.New(postgres.Config{Conn: db}) },
		Bad: []string{
			"", "postgres://u:" + enginetest.Secret + "@h", "postgres://u:" + enginetest.Secret + "@h:port/db",
			"postgres://u:%zz" + enginetest.Secret + "@h/db", "host=h dbname=db port=x password=" + enginetest.Secret,
			"mysql://u:" + enginetest.Secret + "@h/db",
		},
		Address:  pg.Addr(),
		Password: clerkPassword,
		Endless:  "SELECT pg_sleep(60)",
		Kill:     func(tb testing.TB, name string) { pg.EndSessions(tb, name) },
		Full:     func(tb testing.TB) string { return pgtest.StartFull(tb).DSN("postgres") },
	})
}

func clerkDSN(p enginetest.Place) string {
	return (&url.URL{
		Scheme: "postgres", User: url.UserPassword("clerk", p.Password),
		Host: p.Addr, Path: "/" + p.Database, RawQuery: "sslmode=disable",
	}).String()
}
