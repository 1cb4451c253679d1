package tenancypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// lockConnector makes the connections of a database that is open for
// migrations. The first one takes the lock, and once it is gone there are no
// others: database/sql replaces a connection that broke without a word, and
// would go on without the lock.
type lockConnector struct {
	to    *connector
	lock  migrate.Lock
	token string // application_name of its connections

	mu   sync.Mutex
	pid  uint32 // of the connection that has the lock; 0 before
	lost bool   // that connection is gone
	made []*lockConn
}

// lockConn is one of them.
type lockConn struct {
	*conn
	c      *lockConnector
	holder bool // it has the lock
	closed bool // guarded by c.mu
}

// Connect implements [driver.Connector].
func (c *lockConnector) Connect(ctx context.Context) (driver.Conn, error) {
	pid, lost := c.state()
	if lost {
		return nil, fmt.Errorf("tenancypg: %w: begin anew", errSessionLost)
	}
	dc, err := c.to.Connect(ctx)
	if err != nil {
		return nil, err
	}
	lc := &lockConn{conn: dc.(*conn), c: c, holder: pid == 0 && !c.lock.ReadOnly}
	if pc := lc.Conn().PgConn(); pid == 0 {
		err = c.first(ctx, pc)
	} else {
		err = c.second(ctx, pc, pid)
	}
	if err != nil {
		_ = lc.conn.Close()
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, lc)
	return lc, nil
}

// end closes db, and what sql.DB.Close leaves to whoever has it in use: after a
// panic nobody has, and the lock would stay. It closes the socket only, since
// database/sql may be at the connection still, to roll back.
func (c *lockConnector) end(db *sql.DB) error {
	err := db.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, lc := range c.made {
		if !lc.closed {
			_ = lc.Conn().PgConn().Conn().Close()
		}
	}
	return err
}

// Driver implements [driver.Connector].
func (c *lockConnector) Driver() driver.Driver { return c.to.Driver() }

func (c *lockConnector) state() (pid uint32, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid, c.lost
}

func (c *lockConnector) first(ctx context.Context, pc *pgconn.PgConn) error {
	if err := c.take(ctx, pc); err != nil || c.lock.ReadOnly {
		return err // without a lock, each connection is a first one
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pid = pc.PID()
	return nil
}

// second makes sure that the lock is still held, after it has shown to whom
// takes the lock next that it is here: the one or the other sees the other.
func (c *lockConnector) second(ctx context.Context, pc *pgconn.PgConn, holder uint32) error {
	results, err := pc.Exec(ctx, fmt.Sprintf(
		"SELECT CASE WHEN pg_backend_pid() = %d AND pg_try_advisory_lock_shared(%d) THEN %s END; SELECT count(*) FROM (%s) h WHERE pid = %d",
		pc.PID(), besideKey, done(stateOpen, append(endless(pc), setting{"application_name", c.token})), holders(migrationKey), holder)).ReadAll()
	if err != nil {
		return err
	}
	if string(results[0].Rows[0][0]) != stateOpen || string(results[1].Rows[0][0]) == "0" {
		c.lose()
		return fmt.Errorf("tenancypg: %w: begin anew", errSessionLost)
	}
	return nil
}

func (c *lockConnector) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
}

// Close implements [driver.Conn]. database/sql closes what broke, and what was
// left in the middle of a transaction.
func (lc *lockConn) Close() error {
	lc.c.mu.Lock()
	lc.closed = true
	lc.c.lost = lc.c.lost || lc.holder
	lc.c.mu.Unlock()
	return lc.conn.Close()
}

// ResetSession implements [driver.SessionResetter]: without the lock, the
// connection beside it is not used again. There is no ping, in which a server
// that is slow for a second would cost the lock.
func (lc *lockConn) ResetSession(ctx context.Context) error {
	if _, lost := lc.c.state(); lost {
		return driver.ErrBadConn
	}
	return lc.stdConn.ResetSession(ctx)
}

var _ interface {
	driver.Validator
	driver.SessionResetter
} = (*lockConn)(nil)

// take takes the lock, for which it waits.
func (c *lockConnector) take(ctx context.Context, pc *pgconn.PgConn) error {
	steal := c.lock.Steal && !c.lock.ReadOnly
	var deadline time.Time
	if c.lock.Wait > 0 {
		deadline = time.Now().Add(c.lock.Wait)
	}
	// Not by pg_advisory_lock: the statement that waits has a snapshot, and a
	// CREATE INDEX CONCURRENTLY of the holder waits for all that have one: a
	// deadlock.
	for pause := lockPauseMin; ; pause = min(2*pause, lockPauseMax) {
		state, err := c.try(ctx, pc)
		if err != nil {
			return err
		}
		// Who is here without the lock's holder has no right to be, and one
		// that hangs would for ever be in the way.
		who := holders(besideKey)
		if steal {
			who += " UNION " + holders(migrationKey) + " UNION " + ownSessions
		}
		if state == stateBeside || steal {
			if err := endAll(ctx, pc, who); err != nil {
				return err
			}
		}
		switch {
		case state != stateHeld:
			return nil
		case steal:
			// Once only: the next holder has a right to it.
			steal, pause = false, lockPauseMin/2
			continue
		}
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return locked(ctx, pc)
			}
			pause = min(pause, left)
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("waiting for its migration lock, which another process has: %w", err)
		}
	}
}

// locked is [migrate.ErrLocked] with what is known of the lock's holder.
func locked(ctx context.Context, pc *pgconn.PgConn) error {
	row, err := readSimple(ctx, pc, `
		SELECT pid, coalesce(application_name, ''), coalesce(client_addr::text, 'a socket or an address that this role may not see')
		FROM pg_stat_activity WHERE pid IN (`+holders(migrationKey)+")")
	if err != nil {
		return errors.Join(migrate.ErrLocked, err)
	}
	if row == nil {
		return fmt.Errorf("%w, which has just ended", migrate.ErrLocked)
	}
	return fmt.Errorf("%w: pid %s, application_name %q, from %s", migrate.ErrLocked, row[0], row[1], row[2])
}
