package testpg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/internal/backendtest"
)

func open(t *testing.T, dsn string) *server {
	t.Helper()
	s, err := Backend{DSN: dsn}.Open(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s.(*server)
}

// Without TENANCY_TEST_DSN there is a server as long as the run, which can't
// keep anything, and says what would.
func TestOwnServer(t *testing.T) {
	pgtest.Start(t) // skips where there is no PostgreSQL
	t.Setenv(EnvDSN, "")
	s := open(t, "")
	name, err := s.Template(t.Context(), "k", true, backendtest.Table)
	require.NoError(t, err)
	d, err := s.Clone(t.Context(), name)
	require.NoError(t, err)
	_, err = d.Keep(t.Context(), "TestX")
	require.ErrorContains(t, err, EnvDSN)
	conn, err := pgx.Connect(t.Context(), d.DSN())
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
	require.NoError(t, s.Close(t.Context()))
	_, err = pgx.Connect(t.Context(), d.DSN())
	require.Error(t, err)
}

func TestMissing(t *testing.T) {
	t.Setenv(EnvRequire, "")
	err := missing(pgtest.ErrNoBinaries)
	require.ErrorIs(t, err, tenancytest.ErrNoServer)
	require.ErrorContains(t, err, EnvDSN)
	t.Setenv(EnvRequire, "1")
	err = missing(pgtest.ErrNoBinaries)
	require.NotErrorIs(t, err, tenancytest.ErrNoServer)
	require.ErrorContains(t, err, EnvDSN)
}

// No password gets into an error or a log.
func TestPasswords(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"host=x password=s3cret", "postgres://u:s3cret@127.0.0.1:x/db", "mysql://u:s3cret@h/db",
		"postgres://u:s3cret@127.0.0.1:1/db", "postgres://u@127.0.0.1:1/db?password=s3cret"} {
		_, err := Backend{DSN: dsn}.Open(t.Context())
		require.Error(t, err)
		require.NotContains(t, err.Error(), "s3cret")
	}
	u, err := parse("postgres://u:s3cret@h:1/?dbname=admin&password=s3cret&sslmode=disable")
	require.NoError(t, err)
	s := &server{url: u}
	require.Equal(t, "postgres://u@h:1/x?sslmode=disable", s.shown("x"))
	require.Contains(t, s.dsn("x"), "postgres://u:s3cret@h:1/x?")
	require.Equal(t, "/admin", u.Path)
}

// Of all that ask for a template at once, in any number of runs, one makes it.
func TestTemplateRace(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	backendtest.TemplateRace(t, func() tenancytest.Server { return open(t, pg.DSN("postgres")) })
}

// Two runs with other maintenance databases have other locks, and get along.
func TestOtherMaintenanceDatabase(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	one, two := open(t, pg.DSN("postgres")), open(t, pg.DSN(pg.CreateDatabase(t)))
	name, err := one.Template(t.Context(), "k", true, func(ctx context.Context, db *sql.DB) error {
		_, err := two.Template(ctx, "k", true, backendtest.Table)
		return errors.Join(err, backendtest.Table(ctx, db))
	})
	require.NoError(t, err)
	_, err = one.Clone(t.Context(), name)
	require.NoError(t, err)
	// The next to come sees that one is alive, wherever its lock is.
	require.NoError(t, open(t, pg.DSN(pg.CreateDatabase(t))).Close(t.Context()))
	require.Len(t, names(t, pg, "tenancytest_"+one.id+"_"), 2)
	require.NoError(t, one.Close(t.Context()))
	require.NoError(t, two.Close(t.Context()))
	require.Equal(t, []string{name}, names(t, pg, "tenancytest_"))
}

// names returns the databases whose name begins with prefix.
func names(t *testing.T, pg *pgtest.Cluster, prefix string) []string {
	t.Helper()
	rows, err := pg.Admin(t).Query(t.Context(), "SELECT datname FROM pg_database WHERE starts_with(datname::text, $1)", prefix)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return all
}

// What is of use to others stays, until it is old.
func TestSweep(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	s := open(t, pg.DSN("postgres"))
	template, err := s.Template(t.Context(), "k", true, backendtest.Table)
	require.NoError(t, err)
	var kept []string
	for range 2 {
		d, err := s.Clone(t.Context(), template)
		require.NoError(t, err)
		_, err = d.Keep(t.Context(), "TestX")
		require.NoError(t, err)
		kept = append(kept, d.(*database).name)
	}
	require.NoError(t, s.Close(t.Context()))
	age := func(name, was string, by time.Duration) {
		pg.Exec(t, "postgres", comment(name, fmt.Sprintf("%s%d", was, time.Now().Add(-by).Unix())))
	}
	sweep := func(pkg string) {
		s := open(t, pg.DSN("postgres"))
		s.pkg = pkg
		require.NoError(t, s.sweep(t.Context(), deadTime))
		require.NoError(t, s.Close(t.Context()))
	}
	// open sweeps as this package: what is kept must be of another.
	age(kept[0], keptComment+"other ", keptTime-time.Minute)
	age(kept[1], keptComment+"other ", keptTime+time.Minute)
	age(template, usedComment, templateTime-time.Minute)
	sweep("third")
	require.ElementsMatch(t, []string{kept[0], template}, names(t, pg, "tenancytest_"))

	sweep("other")
	require.Equal(t, []string{template}, names(t, pg, "tenancytest_"))

	age(template, usedComment, templateTime+time.Minute)
	sweep("third")
	require.Empty(t, names(t, pg, "tenancytest_"))

	// Databases that others have named so.
	pg.Exec(t, "postgres", "CREATE DATABASE tenancytest_tpl_mine")
	pg.Exec(t, "postgres", "CREATE DATABASE tenancytest_dev")
	sweep("third")
	require.Len(t, names(t, pg, "tenancytest_"), 2)
}

// The server need not be a superuser's, and what others own is left to them.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	pg.Exec(t, "postgres", "CREATE ROLE clerk LOGIN CREATEDB")
	pg.Exec(t, "postgres", "CREATE DATABASE tenancytest_aaaaaaaaaaaa_1")
	s := open(t, strings.Replace(pg.DSN("postgres"), "postgres@", "clerk@", 1))
	name, err := s.Template(t.Context(), "k", true, backendtest.Table)
	require.NoError(t, err)
	d, err := s.Clone(t.Context(), name)
	require.NoError(t, err)
	require.Len(t, names(t, pg, d.(*database).name), 1)
	require.NoError(t, s.Close(t.Context()))
	require.ElementsMatch(t, []string{"tenancytest_aaaaaaaaaaaa_1", name}, names(t, pg, "tenancytest_"))
}

// A run of many tests does not fill the disk.
func TestWaste(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	s := open(t, pg.DSN("postgres"))
	name, err := s.Template(t.Context(), "k", false, backendtest.Table)
	require.NoError(t, err)
	for range maxWaste + 5 {
		d, err := s.Clone(t.Context(), name)
		require.NoError(t, err)
		d.Discard()
	}
	require.Len(t, names(t, pg, "tenancytest_"+s.id), maxWaste+1, "with the template")
	require.NoError(t, s.Close(t.Context()))
	require.Empty(t, names(t, pg, "tenancytest_"))
}
