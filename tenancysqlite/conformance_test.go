package tenancysqlite_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenancytest/enginetest"
)

// TestConformance: the engine keeps what its interfaces promise, with and
// without a Dir.
func TestConformance(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		engine tenancysqlite.Engine
		dsn    func(name string) string
	}{
		"Dir":   {tenancysqlite.Engine{Dir: dir}, func(name string) string { return name }},
		"paths": {tenancysqlite.Engine{}, func(name string) string { return tenancysqlite.DSN(filepath.Join(dir, name)) }},
	} {
		t.Run(name, func(t *testing.T) {
			var files atomic.Int64
			enginetest.Run(t, enginetest.Config{
				Engine: c.engine,
				Create: func(tb testing.TB) string {
					file := fmt.Sprintf("%s%d.db", name, files.Add(1))
					require.NoError(tb, tenancysqlite.Create(tb.Context(), filepath.Join(dir, file)))
					return file
				},
				Open: func(tb testing.TB, file string) *sql.DB {
					db, err := sql.Open("sqlite", filepath.Join(dir, file)+"?_pragma=busy_timeout(10000)")
					require.NoError(tb, err)
					return db
				},
				DSN:       func(p enginetest.Place) string { return c.dsn(p.Database) },
				Dialector: func(db *sql.DB) gorm.Dialector { return &sqlite.Dialector{Conn: db} },
				Bad: []string{
					"", ":memory:", "a.db?mode=memory", "a.db-wal", "dir/", "a.db?vfs=" + enginetest.Secret, "file:%zz",
					"postgres://u:" + enginetest.Secret + "@h/db",
				},
				Endless: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
				Lacks: map[enginetest.Feature]string{
					enginetest.Network:     "a database is a file",
					enginetest.Passwords:   "a file has none",
					enginetest.Kills:       "nobody else can end a connection",
					enginetest.Saturates:   "there is no server that could be full; file descriptors are the process's",
					enginetest.Permits:     "a connection is gone when its Close returns",
					enginetest.NamesServer: "all files are on one server, which Engine.Server names",
				},
			})
		})
	}
}
