package catalog_test

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// addServer adds one more server: a directory, or a cluster of this test's own.
func (p *place) addServer(t *testing.T, name string) *pgtest.Cluster {
	t.Helper()
	if p.Engine == "sqlite" {
		p.Servers[name] = target{Dir: filepath.Join(t.TempDir(), name)}
		return nil
	}
	pg := pgtest.Start(t)
	p.Servers[name] = pgTarget(t, pg)
	return pg
}

// dsnOf is dsn for another database.
func dsnOf(t *testing.T, dsn, database string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	return "host=" + cfg.Host + " port=" + strconv.Itoa(int(cfg.Port)) + " user=" + cfg.User + " sslmode=disable dbname='" + database + "'"
}

// user returns the role of a DSN.
func user(dsn string) string {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		panic(err) // ours
	}
	return cfg.User
}
