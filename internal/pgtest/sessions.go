package pgtest

// EndSessions ends all sessions of the database dbname, at the server, and
// returns when they are gone.
func (c *Cluster) EndSessions(tb TB, dbname string) {
	tb.Helper()
	c.Exec(tb, c.adminDB(), "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1", dbname)
}

// StartFull is Start for a cluster that has no connection left, until the
// test's cleanup.
func StartFull(tb TB) *Cluster {
	tb.Helper()
	const slots = 5
	c := Start(tb, MaxConns(slots))
	for range slots {
		c.Admin(tb)
	}
	return c
}
