package tenancypg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func replicaDB(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	c, err := Engine{}.ReplicaConnector(dsn)
	require.NoError(t, err)
	db := sql.OpenDB(c)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Nothing is written by a replica's connection: not to a server that takes
// writes, not to a standby, not to one that is promoted while it is open.
func TestReplicaConnector(t *testing.T) {
	clearEnv(t)
	pg := pgtest.Start(t)
	name := pg.CreateDatabase(t)
	pg.Exec(t, name, "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('x')")
	standby := pg.Standby(t)
	onPrimary, onStandby := replicaDB(t, pg.DSN(name)+"&options=-c%20statement_timeout%3D12345"), replicaDB(t, standby.DSN(name))
	for _, db := range []*sql.DB{onPrimary, onStandby} {
		for _, write := range []string{
			"INSERT INTO notes VALUES ('y')", "UPDATE notes SET text = 'y'", "DELETE FROM notes", "TRUNCATE notes",
			"CREATE TABLE x ()", "SELECT text FROM notes FOR UPDATE", "SELECT text INTO x FROM notes", "SELECT set_config('a.b', 'c', false); DELETE FROM notes",
		} {
			_, err := db.Exec(write)
			var pgErr *pgconn.PgError
			require.ErrorAs(t, err, &pgErr, write)
			require.Equal(t, "25006", pgErr.Code, write)
			require.True(t, Engine{}.ReplicaRefused(err))
			require.Equal(t, tenancy.FaultNone, Engine{}.Classify(err))
		}
		var text string
		require.NoError(t, db.QueryRow("SELECT text FROM notes").Scan(&text))
		require.Equal(t, "x", text)
	}
	var timeout string
	require.NoError(t, onPrimary.QueryRow("SHOW statement_timeout").Scan(&timeout))
	require.Equal(t, "12345ms", timeout, "the DSN's own options stay")

	conn, err := onStandby.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	pg.Kill()
	standby.Promote(t)
	for range 2 {
		_, err = conn.ExecContext(t.Context(), "INSERT INTO notes VALUES ('y')")
		require.ErrorContains(t, err, "25006")
	}
	_, err = onStandby.Exec("INSERT INTO notes VALUES ('y')")
	require.ErrorContains(t, err, "25006", "a new connection")
	standby.Exec(t, name, "INSERT INTO notes VALUES ('z')") // it does take writes
}

// A DSN that asks for the opposite, by whichever way, gets no session that
// writes.
func TestReplicaDSNSaysOtherwise(t *testing.T) {
	clearEnv(t)
	pg := pgtest.Shared(t)
	name := pg.CreateDatabase(t)
	pg.Exec(t, name, "CREATE TABLE notes (text text)")
	for _, params := range []string{
		"&default_transaction_read_only=off",
		"&Default_Transaction_Read_Only=off",
		"&options=-c%20default_transaction_read_only%3Doff",
		"&options=--default-transaction-read-only%3Doff",
	} {
		for range 8 { // parameters are sent in the order of a map
			_, err := replicaDB(t, pg.DSN(name)+params).Exec("INSERT INTO notes VALUES ('x')")
			if !errors.Is(err, errReplicaWrites) {
				require.ErrorContains(t, err, "25006", params)
			}
		}
	}
	var n int
	require.NoError(t, pg.Conn(t, name).QueryRow(t.Context(), "SELECT count(*) FROM notes").Scan(&n))
	require.Zero(t, n)
}

// What a standby says, and what it is taken for.
func TestReplicaErrors(t *testing.T) {
	clearEnv(t)
	pg := pgtest.Start(t)
	name := pg.CreateDatabase(t)
	pg.Exec(t, name, "CREATE TABLE notes (text text); INSERT INTO notes SELECT 'x' FROM generate_series(1, 1000)")
	// A standby that ends at once what is in the way of what it replays.
	standby := pg.Standby(t, pgtest.Setting("max_standby_streaming_delay", "0"))
	db := replicaDB(t, standby.DSN(name))

	for _, later := range []string{
		"SELECT * FROM later", "SELECT later FROM notes", "SELECT later(1)", "SELECT 'x'::later", "SELECT later.f(1)",
	} {
		_, err := db.Exec(later)
		require.True(t, Engine{}.ReplicaRefused(err), "%v", err)
		require.Equal(t, tenancy.FaultNone, Engine{}.Classify(err))
	}
	for _, own := range []string{"SELECT 1/0", "SELECT * FRM notes", "SELECT 'x'::int"} {
		_, err := db.Exec(own)
		require.Error(t, err)
		require.False(t, Engine{}.ReplicaRefused(err), "%v", err)
	}
	require.False(t, Engine{}.ReplicaRefused(nil))
	require.False(t, Engine{}.ReplicaRefused(errors.New("x")))

	// A query holds a lock that a replayed statement needs.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conflict := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(ctx, "SELECT count(*) FROM notes, pg_sleep(60)")
		conflict <- err
	}()
	require.Eventually(t, func() bool {
		var n int
		err := standby.Admin(t).QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE relation::regclass::text = 'notes' OR (locktype = 'relation' AND database = (SELECT oid FROM pg_database WHERE datname = $1) AND mode = 'AccessShareLock')", name).Scan(&n)
		return err == nil && n > 0
	}, time.Minute, 10*time.Millisecond)
	pg.Exec(t, name, "DROP TABLE notes")
	err := <-conflict
	require.ErrorContains(t, err, "conflict with recovery")
	require.True(t, Engine{}.ReplicaRefused(err), "%v", err)

	// A database that is dropped while its replica is read.
	conn, err := db.Conn(ctx)
	require.NoError(t, err)
	defer conn.Close()
	other := replicaDB(t, pg.DSN(name)) // ended by WITH (FORCE)
	require.NoError(t, other.Ping())
	pg.Exec(t, "postgres", "DROP DATABASE "+name+" WITH (FORCE)")
	standby.Follow(t, pg)
	_, err = conn.ExecContext(ctx, "SELECT 1")
	require.Equal(t, tenancy.FaultTenant, Engine{}.Classify(err), "%v", err)
	_, err = replicaDB(t, standby.DSN(name)).Exec("SELECT 1")
	require.Equal(t, tenancy.FaultTenant, Engine{}.Classify(err), "%v", err)

	standby.Kill()
	_, err = replicaDB(t, standby.DSN("postgres")).Exec("SELECT 1")
	require.Equal(t, tenancy.FaultServer, Engine{}.Classify(err), "%v", err)
}

// A PgBouncer takes the parameter if it is told to; if not, the connector finds
// out, and asks the server instead.
func TestReplicaBouncer(t *testing.T) {
	clearEnv(t)
	pg := pgtest.Start(t)
	name := pg.CreateDatabase(t)
	pg.Exec(t, name, "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('x')")
	standby := pg.Standby(t)
	for _, mode := range []string{"session", "transaction"} {
		through := func(c *pgtest.Cluster, opts ...pgtest.BouncerOption) string {
			return pgtest.StartBouncer(t, c, append(opts, pgtest.PoolMode(mode))...).DSN(name)
		}
		db := replicaDB(t, through(standby))
		for range 3 {
			var n int
			require.NoError(t, db.QueryRow("SELECT count(*) FROM notes").Scan(&n), mode)
			require.Equal(t, 1, n)
		}
		_, err := db.Exec("INSERT INTO notes VALUES ('y')")
		require.ErrorContains(t, err, "25006")

		// No standby behind it: no connection is used.
		for _, opts := range [][]pgtest.BouncerOption{nil, {pgtest.BouncerSetting("ignore_startup_parameters", "extra_float_digits,default_transaction_read_only")}} {
			db = replicaDB(t, through(pg, opts...))
			_, err = db.Exec("SELECT 1")
			require.ErrorContains(t, err, "the replica's session would take writes", "%s %v", mode, opts)
			require.Equal(t, tenancy.FaultTenant, Engine{}.Classify(err))
		}
	}
	require.Equal(t, fmt.Sprintf("127.0.0.1:%d", standby.Port()), Engine{}.Server(standby.DSN(name)))
}
