package cli

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// A connection that was read on goes back to the pool as one that can write,
// whatever became of the statement.
func TestQueryOnlyIsReset(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "acme.db")
	require.NoError(t, tenancysqlite.Create(t.Context(), file))
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	plugin := tenancy.New(tenancy.Config{
		Resolver: tenancy.Static{"acme": {DSN: tenancysqlite.DSN(file), MaxConns: 1}}, // the very connection
		Engine:   tenancysqlite.Engine{},
	})
	require.NoError(t, db.Use(plugin))
	t.Cleanup(func() {
		require.NoError(t, plugin.Close(context.Background()))
		pool, err := db.DB()
		require.NoError(t, err)
		require.NoError(t, pool.Close())
	})
	acme := tenancy.For(db, "acme")
	require.NoError(t, acme.Exec("CREATE TABLE notes (n integer)").Error)
	for name, query := range map[string]string{
		"well":          "SELECT 1",
		"more rows":     "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3",
		"a write":       "WITH x AS (SELECT 1) INSERT INTO notes SELECT 1",
		"no such table": "SELECT * FROM nowhere",
		"out of time":   "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT 1 FROM c) SELECT i FROM c",
	} {
		t.Run(name, func(t *testing.T) {
			maxRows := 1
			if name == "out of time" {
				maxRows = 0
			}
			statement, err := sqliteStatement(query, false, maxRows)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if name != "out of time" {
				ctx = t.Context()
			}
			defer cancel()
			res, err := statement(ctx, acme)
			switch name {
			case "well", "more rows":
				require.NoError(t, err)
				require.Len(t, res.rows, 1)
				require.Equal(t, name == "more rows", res.more)
			default:
				require.Error(t, err)
			}
			require.NoError(t, acme.Exec("INSERT INTO notes VALUES (1)").Error)
		})
	}
	var n int
	require.NoError(t, acme.Raw("SELECT count(*) FROM notes").Scan(&n).Error)
	require.Equal(t, 5, n, "one after each")
}
