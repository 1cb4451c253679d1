package tenancysqlite

import (
	"database/sql"
	"database/sql/driver"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

// A replica's file is read as it is, and never written, whatever its DSN says.
func TestReplica(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	require.NoError(t, Create(t.Context(), path))
	open := func(connector func(string) (driver.Connector, error), dsn string) *sql.DB {
		t.Helper()
		c, err := connector(dsn)
		require.NoError(t, err)
		db := sql.OpenDB(c)
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	primary := open(Engine{}.Connector, path)
	_, err := primary.Exec("CREATE TABLE notes (text); INSERT INTO notes VALUES ('x')")
	require.NoError(t, err)
	for _, query := range []string{"", "?mode=rw", "?_pragma=journal_mode(DELETE)", "?_pragma=busy_timeout(10)&_txlock=exclusive"} {
		replica := open(Engine{}.ReplicaConnector, DSN(path)+query)
		for range 2 { // also while the primary is open, and writes
			var n int
			require.NoError(t, replica.QueryRow("SELECT count(*) FROM notes").Scan(&n), query)
			require.Equal(t, 1, n)
			_, err = primary.Exec("UPDATE notes SET text = 'y'")
			require.NoError(t, err)
		}
		for _, write := range []string{"INSERT INTO notes VALUES ('x')", "UPDATE notes SET text = 'z'", "DROP TABLE notes", "CREATE TABLE x (y)", "PRAGMA query_only = 0; DELETE FROM notes"} {
			_, err = replica.Exec(write)
			require.ErrorContains(t, err, "readonly", "%s %s", query, write)
			require.True(t, Engine{}.ReplicaRefused(err))
			require.Equal(t, tenancy.FaultNone, Engine{}.Classify(err))
		}
		for _, later := range []string{"SELECT * FROM later", "SELECT later FROM notes"} {
			_, err = replica.Query(later)
			require.True(t, Engine{}.ReplicaRefused(err), "%v", err)
		}
		_, err = replica.Query("SELECT * FRM notes")
		require.Error(t, err)
		require.False(t, Engine{}.ReplicaRefused(err))
	}
	require.False(t, Engine{}.ReplicaRefused(nil))
	var mode string
	require.NoError(t, primary.QueryRow("PRAGMA journal_mode").Scan(&mode))
	require.Equal(t, "wal", mode)

	missing := open(Engine{}.ReplicaConnector, filepath.Join(t.TempDir(), "missing.db"))
	err = missing.Ping()
	require.Equal(t, tenancy.FaultTenant, Engine{}.Classify(err), "%v", err)
	_, err = Engine{}.ReplicaConnector(":memory:")
	require.ErrorContains(t, err, "in memory")
}
