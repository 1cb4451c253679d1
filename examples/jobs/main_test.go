package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }

func TestRun(t *testing.T) {
	c := pgtest.Shared(t)
	admin := c.Admin(t)
	databases := func() (names []string) {
		rows, err := admin.Query(t.Context(), "SELECT datname FROM pg_database WHERE datname LIKE 'tenancy%' OR datname LIKE 't\\_%' ORDER BY 1")
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var name string
			require.NoError(t, rows.Scan(&name))
			names = append(names, name)
		}
		return names
	}
	before := databases()
	var out strings.Builder
	require.NoError(t, run(&out, c.DSN("postgres")), out.String())
	assert.Equal(t, before, databases(), "what it made is dropped")
	golden, err := os.ReadFile("output.txt")
	require.NoError(t, err)
	assert.Equal(t, string(golden), out.String())
}

func TestNoURL(t *testing.T) {
	err := run(&strings.Builder{}, "host=db1 password=secret")
	require.ErrorContains(t, err, "the DSN must be a URL")
	assert.NotContains(t, err.Error(), "secret")
}
