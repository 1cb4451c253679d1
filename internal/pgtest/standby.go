package pgtest

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// Standby starts a standby of c for this test alone: a server of its own that
// streams all that is written on c, and answers reads. It has c's settings, and
// those of opts. All faults work on it as on any cluster; [Cluster.Promote]
// makes it a primary. A cluster may have several.
//
// It returns when the standby answers, with all that c had when it was called.
// c waits for no standby, and keeps the last 256 MB for one that is away.
//
// Without pg_basebackup beside c's own programs the test is skipped, or fails if
// [EnvRequire] is 1 and [EnvDSN] is not set. It is skipped too if c is somebody
// else's server.
func (c *Cluster) Standby(tb TB, opts ...Option) *Cluster {
	tb.Helper()
	if c.external != nil {
		tb.Skipf("pgtest: there is no standby of the server of %s", EnvDSN)
		return nil
	}
	c.mine("Standby")
	if err := findBasebackup(c.bin); err != nil {
		missing(tb, err)
		return nil
	}
	s, err := launch(c.bin, func(s *Cluster) error {
		// -R writes standby.signal, and where the primary is.
		out, err := s.command("pg_basebackup", "-D", s.data(), "-h", "127.0.0.1", "-p", strconv.Itoa(c.port), "-U", "postgres",
			"-R", "-X", "stream", "-c", "fast", "--no-sync", "-w").CombinedOutput()
		if err != nil {
			return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
		}
		// How soon it is back after c was away; 5s otherwise.
		return s.configure(config{settings: [][2]string{{"wal_retrieve_retry_interval", "100ms"}}}, opts)
	})
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
		return nil
	}
	s.tb = tb
	tb.Cleanup(s.remove)
	s.Follow(tb, c)
	return s
}

// Follow waits until the standby c has replayed all that was written on primary
// so far.
func (c *Cluster) Follow(tb TB, primary *Cluster) {
	tb.Helper()
	// With synchronous_commit off, what was written may not be sent yet. A
	// transaction that waits for its own flush takes it along.
	primary.Exec(tb, primary.adminDB(),
		"BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'pgtest', ''); COMMIT")
	var at string
	primary.ask(tb, &at, "SELECT pg_current_wal_flush_lsn()::text")
	c.await(tb, "to replay what was written", "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)", at)
}

// StreamFrom makes the standby follow another primary, one that was promoted
// and had all that the standby has.
func (c *Cluster) StreamFrom(tb TB, primary *Cluster) {
	tb.Helper()
	c.Exec(tb, c.adminDB(), fmt.Sprintf("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=%d user=postgres'", primary.port))
	c.Exec(tb, c.adminDB(), "SELECT pg_reload_conf()")
	c.Follow(tb, primary)
}

// PauseReplay makes the standby lag: it goes on to receive what the primary
// writes, and shows none of it until [Cluster.ResumeReplay].
func (c *Cluster) PauseReplay(tb TB) {
	tb.Helper()
	c.Exec(tb, c.adminDB(), "SELECT pg_wal_replay_pause()")
	c.await(tb, "to pause", "SELECT pg_get_wal_replay_pause_state() = 'paused'")
}

// ResumeReplay ends PauseReplay. See [Cluster.Follow] for when it has caught up.
func (c *Cluster) ResumeReplay(tb TB) {
	tb.Helper()
	c.Exec(tb, c.adminDB(), "SELECT pg_wal_replay_resume()")
}

// Promote makes the standby a primary, and returns when it takes writes. What
// streamed from the same primary goes on to do so.
func (c *Cluster) Promote(tb TB) {
	tb.Helper()
	c.Exec(tb, c.adminDB(), "SELECT pg_promote()")
	c.await(tb, "to take writes", "SELECT NOT pg_is_in_recovery()")
}

// InRecovery reports whether the server is a standby, as it is until
// [Cluster.Promote].
func (c *Cluster) InRecovery(tb TB) (is bool) {
	tb.Helper()
	c.ask(tb, &is, "SELECT pg_is_in_recovery()")
	return is
}

// ask queries one value.
func (c *Cluster) ask(tb TB, dest any, sql string, args ...any) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DSN(c.adminDB()))
	if err != nil {
		tb.Fatalf("pgtest: connecting to %s: %v", c.Addr(), err)
		return
	}
	defer conn.Close(ctx) //nolint:errcheck // the statement's error counts
	if err := conn.QueryRow(ctx, sql, args...).Scan(dest); err != nil {
		tb.Fatalf("pgtest: %s: %v", sql, err)
	}
}

// await asks until the answer is true.
func (c *Cluster) await(tb TB, what, sql string, args ...any) {
	tb.Helper()
	for deadline := time.Now().Add(queryTimeout); ; time.Sleep(poll) {
		var yes bool
		c.ask(tb, &yes, sql, args...)
		switch {
		case yes:
			return
		case time.Now().After(deadline):
			tb.Fatalf("pgtest: waiting for %s %s: not within %v", c.Addr(), what, queryTimeout)
			return
		}
	}
}
