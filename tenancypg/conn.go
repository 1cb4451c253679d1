package tenancypg

import (
	"context"
	"database/sql/driver"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gorm-tenancy/tenancy"
)

const (
	// pingAfter is how long a connection may lie idle and still be handed
	// out without a ping: pgx's own figure (stdlib/sql.go, ResetSession).
	pingAfter = time.Second
	// pingTimeout bounds that ping. pgx pings under the ctx of whoever wants
	// the connection, which is context.Background() for many: a server that
	// went silent would then hold them for ever.
	pingTimeout = time.Second
	// cleanupLimit is the longest that a permit outlives Close. pgx bounds
	// its cleanup at 15 s (pgconn.go, asyncClose), so this is reached only
	// when somebody took the socket away with PgConn.Hijack, after which
	// pgx never reports an end.
	cleanupLimit = 30 * time.Second
)

// stdConn is an alias so that the field below is not named Conn: it would hide
// the method Conn, by which code under sql.Conn.Raw finds the *pgx.Conn.
type stdConn = stdlib.Conn

var (
	_ driver.Validator       = (*conn)(nil)
	_ driver.SessionResetter = (*conn)(nil)
)

// conn is pgx's connection, which tells when it is gone. database/sql uses it
// from one goroutine at a time.
type conn struct {
	*stdConn
	from     *connector
	permit   tenancy.Permit // nil when nobody counts
	settle   sync.Once
	lastUsed time.Time // when it last went back to its pool
}

// Close closes the connection, and releases its permit once the socket is
// closed for good. Mostly that is now. But where a query was cancelled, pgx
// has already declared the connection closed, and in the background still asks
// the server to cancel and waits for it to hang up, for up to 15 seconds
// (pgconn.go, asyncClose); a permit given back before that would let the
// server's connections grow far beyond the budget.
//
// Nothing watches a connection before its Close: database/sql closes every
// connection that it gives up, also after driver.ErrBadConn and after IsValid
// was false (database/sql/sql.go, putConn and finalClose), so a goroutine is
// needed only for the few that are still dying then.
func (c *conn) Close() error {
	defer c.settle.Do(c.releaseWhenGone)
	return c.stdConn.Close()
}

func (c *conn) releaseWhenGone() {
	permit := c.permit
	if permit == nil {
		return
	}
	gone := c.Conn().PgConn().CleanupDone()
	select {
	case <-gone:
		permit.Release()
		return
	default:
	}
	go func() {
		limit := time.NewTimer(cleanupLimit)
		defer limit.Stop()
		select {
		case <-gone:
		case <-limit.C:
		}
		permit.Release()
	}()
}

// IsValid implements [driver.Validator]: database/sql asks when a connection
// comes back, and closes it on false. Without it, a connection that a
// cancelled query killed would lie in the pool as an idle one.
func (c *conn) IsValid() bool {
	if c.Conn().IsClosed() {
		return false
	}
	// A transaction left open keeps its locks for as long as the connection
	// is idle. pgx refuses such a connection too, but only when it is next
	// wanted (stdlib/sql.go, ResetSession).
	if c.Conn().PgConn().TxStatus() != 'I' {
		return false
	}
	c.lastUsed = time.Now()
	return true
}

// ResetSession implements [driver.SessionResetter]: database/sql calls it
// before a connection is used again. A connection that was idle for a while is
// tried first.
func (c *conn) ResetSession(ctx context.Context) error {
	if time.Since(c.lastUsed) > pingAfter {
		if err := c.ping(ctx); err != nil {
			// database/sql closes it and takes another.
			return driver.ErrBadConn
		}
	}
	return c.stdConn.ResetSession(ctx)
}

func (c *conn) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return c.Conn().PgConn().Ping(ctx)
}
