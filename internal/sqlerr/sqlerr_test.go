package sqlerr_test

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"

	_ "github.com/glebarez/go-sqlite" // the driver "sqlite"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	of := func(code string) error { return fmt.Errorf("asking: %w", &pgconn.PgError{Code: code}) }
	require.Equal(t, "42P01", sqlerr.State(of("42P01")))
	require.True(t, sqlerr.MissingTable(of("42P01")))
	require.False(t, sqlerr.MissingTable(of("42703")))
	require.True(t, sqlerr.Unique(of("23505")))
	require.False(t, sqlerr.Unique(of("23503")))
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", ":memory:")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.SetMaxOpenConns(1)
	do := func(query string) error {
		_, err := db.Exec(query)
		return err
	}
	require.True(t, sqlerr.MissingTable(do("SELECT * FROM nowhere")))
	require.NoError(t, do("CREATE TABLE t (id integer UNIQUE, other integer NOT NULL)"))
	require.NoError(t, do("INSERT INTO t VALUES (1, 1)"))
	twice := do("INSERT INTO t VALUES (1, 1)")
	require.True(t, sqlerr.Unique(twice))
	require.NotZero(t, sqlerr.Code(twice))
	null := do("INSERT INTO t VALUES (2, NULL)")
	require.Error(t, null)
	require.False(t, sqlerr.Unique(null))
	require.False(t, sqlerr.MissingTable(null))
}

func TestOthers(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, errors.New("no")} {
		require.Empty(t, sqlerr.State(err))
		require.Zero(t, sqlerr.Code(err))
		require.False(t, sqlerr.MissingTable(err))
		require.False(t, sqlerr.Unique(err))
	}
}
