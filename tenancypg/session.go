package tenancypg

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy/catalog"
)

var (
	_ catalog.Session       = (*session)(nil)
	_ catalog.SessionLocker = (*session)(nil)
)

const (
	lockPauseMin = 5 * time.Millisecond
	lockPauseMax = 250 * time.Millisecond
	closeTimeout = 5 * time.Second
	// goneTimeout bounds the wait for a session that was terminated.
	goneTimeout = 10 * time.Second
	// pollFirst is for what mostly happens at once, poll for the rest.
	pollFirst = 2 * time.Millisecond
	poll      = 20 * time.Millisecond
)

// session holds an advisory lock for the database's name on a connection to
// the maintenance database. What changes the server runs on that very
// connection: once a successor has terminated it, nothing has an effect. The
// session's connections to the database itself are made by
// [session.connectTenant], which sees to the same.
type session struct {
	s     *Server
	name  string
	ident string // name, quoted
	token string // application_name of its connections to the database
	conn  *sql.Conn
	roles roles

	mu     sync.Mutex // held over a connectTenant; guards what follows
	lost   error
	closed bool
	handed []*sql.DB // by DB

	tenant *sql.DB // for Mark and Open; used by the session's goroutine only
}

// roles are the facts about the two roles.
type roles struct {
	version int    // server_version_num
	admin   uint32 // the administrator's oid
	app     uint32 // the application's
	// apart is true when the application's rights can be taken away: it is
	// another role, no superuser, and does not have the administrator's
	// rights by membership.
	apart bool
}

// Session implements [catalog.Server]. The lock is a session-level advisory
// lock in the maintenance database
// (https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS).
// Whoever waits for it keeps no connection meanwhile, so that waiting for one
// database does not stop work on others; there is no order among those who
// wait.
//
// Steal terminates the holder's backend, and migrations that run in the
// database. What an earlier holder has left running there is terminated in any
// case.
func (s *Server) Session(ctx context.Context, name string, steal bool) (catalog.Session, error) {
	if s.admin == nil {
		return nil, errNoAdmin
	}
	if err := s.checkDatabase(name); err != nil {
		return nil, err
	}
	ses := &session{s: s, name: name, ident: quote(name), token: sessionName + rand.Text()[:12]}
	doing := fmt.Sprintf("beginning a session on %q", name)
	key := lockKey(name)
	stolen := steal
	for pause := lockPauseMin; ; pause = min(2*pause, lockPauseMax) {
		conn, err := s.admin.Conn(ctx)
		if err != nil {
			return nil, explain(doing, err)
		}
		ses.conn = conn
		ok, err := ses.lock(ctx, key, steal)
		if ok && err == nil {
			err = ses.begin(ctx, stolen)
		}
		switch {
		case err != nil:
			ses.discard() // it may have the lock
			return nil, explain(doing, err)
		case ok:
			return ses, nil
		}
		// Once only: the next holder has a right to the name.
		steal = false
		if err := conn.Close(); err != nil {
			return nil, explain(doing, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, explain(doing+", which another session has", err)
		}
	}
}

// lockKey is the lock's number. Two names with one number would only wait for
// each other.
func lockKey(name string) int64 {
	sum := sha256.Sum256([]byte("tenancy\x00" + name))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

func (ses *session) lock(ctx context.Context, key int64, steal bool) (ok bool, err error) {
	err = Raw(ses.conn, func(pc *pgx.Conn) error {
		var pid uint32
		var standby bool
		if err := pc.QueryRow(ctx, "SELECT pg_try_advisory_lock($1), pg_backend_pid(), pg_is_in_recovery()", key).Scan(&ok, &pid, &standby); err != nil {
			return err
		}
		if standby { // it has locks of its own, which the primary knows nothing of
			return errors.New("ServerConfig.Admin leads to a standby: name the primary, or several hosts with target_session_attrs=read-write")
		}
		// A pooler gives its clients numbers of its own (PgBouncer's
		// src/client.c, finish_client_login).
		if pid != pc.PgConn().PID() {
			return errors.New("ServerConfig.Admin leads through a connection pooler: locks taken through it hold nothing; name the server itself")
		}
		if ok || !steal {
			return nil
		}
		// A bigint key shows as two halves and objsubid 1 (the manual's page
		// on pg_locks).
		_, err := pc.Exec(ctx, `
			SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE locktype = 'advisory' AND granted AND objsubid = 1
				AND classid = $1::bigint::oid AND objid = $2::bigint::oid
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
			int64(uint64(key)>>32), int64(uint64(key)&0xffffffff))
		return err
	})
	return ok, err
}

// begin is called with the lock.
func (ses *session) begin(ctx context.Context, stolen bool) error {
	var appThere bool
	err := Raw(ses.conn, func(pc *pgx.Conn) error {
		return pc.QueryRow(ctx, `
			SELECT current_setting('server_version_num')::int, a.oid, p.oid IS NOT NULL, coalesce(p.oid, 0),
				coalesce(p.oid <> a.oid AND NOT p.rolsuper AND NOT pg_has_role(p.oid, a.oid, 'USAGE'), false),
				CASE WHEN current_setting('server_version_num')::int >= 140000
					THEN set_config('idle_session_timeout', '0', false) ELSE '' END
			FROM pg_roles a LEFT JOIN pg_roles p ON p.rolname = $1
			WHERE a.rolname = current_user`, ses.s.appRole).
			Scan(&ses.roles.version, &ses.roles.admin, &appThere, &ses.roles.app, &ses.roles.apart, new(string))
	})
	if err != nil {
		return err
	}
	if !appThere {
		return fmt.Errorf("the application's role %q does not exist: create it, with LOGIN", ses.s.appRole)
	}
	return ses.endLeftovers(ctx, stolen)
}

// endLeftovers terminates what earlier sessions have left running in the
// database: a process that was killed, or stolen from, can have a long
// statement there that goes on without it. Migrations take no session, and are
// ended only if the name was stolen: a dump has no reason to.
func (ses *session) endLeftovers(ctx context.Context, stolen bool) error {
	for deadline := time.Now().Add(goneTimeout); ; {
		var n int
		err := ses.row(ctx, `
			SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = $1 AND usesysid = $2
				AND (starts_with(application_name, $3) OR $4 AND starts_with(application_name, $5))`,
			[]any{ses.name, ses.roles.admin, sessionName, stolen, migrationName}, &n)
		switch {
		case err != nil:
			return err
		case n == 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%d connections of an earlier session don't end", n)
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
}

// admin calls fn with the session's connection. When the connection is lost,
// the session is: its lock is gone.
func (ses *session) admin(ctx context.Context, fn func(*pgx.Conn) error) error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return ses.adminLocked(ctx, fn)
}

func (ses *session) adminLocked(ctx context.Context, fn func(*pgx.Conn) error) error {
	switch {
	case ses.closed:
		return errors.New("the session is closed")
	case ses.lost != nil:
		return ses.lost
	case ctx.Err() != nil:
		return ctx.Err()
	}
	dead := true
	err := Raw(ses.conn, func(pc *pgx.Conn) error {
		err := fn(pc)
		dead = pc.IsClosed()
		return err
	})
	if err == nil {
		return nil
	}
	if dead {
		ses.lost = fmt.Errorf("%w: begin another one, unless somebody else has taken the database over (%w)", errSessionLost, err)
		err = ses.lost
	}
	if c := ctx.Err(); c != nil {
		// The server's words are "canceling statement due to user request".
		return fmt.Errorf("%w: %w", c, err)
	}
	return err
}

var errSessionLost = errors.New("the session's connection was lost, and its lock")

// exec runs one statement, or several as one transaction.
func (ses *session) exec(ctx context.Context, sql string) error {
	return ses.admin(ctx, func(pc *pgx.Conn) error { return execSimple(ctx, pc, sql) })
}

func (ses *session) row(ctx context.Context, sql string, args []any, to ...any) error {
	return ses.admin(ctx, func(pc *pgx.Conn) error { return pc.QueryRow(ctx, sql, args...).Scan(to...) })
}

// execSimple uses the simple protocol: several statements in one message are
// one transaction, unless they say otherwise
// (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT).
func execSimple(ctx context.Context, pc *pgx.Conn, sql string) error {
	_, err := pc.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// Close implements [catalog.Session]. It closes what DB has opened too.
func (ses *session) Close() error {
	ses.closeTenant()
	ses.mu.Lock()
	if ses.closed {
		ses.mu.Unlock()
		return nil
	}
	ses.closed = true
	handed := ses.handed
	ses.handed = nil
	ses.mu.Unlock()

	var errs []error
	for _, db := range handed {
		errs = append(errs, db.Close())
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := Raw(ses.conn, func(pc *pgx.Conn) error {
		if pc.IsClosed() {
			return nil
		}
		return execSimple(ctx, pc, "SELECT pg_advisory_unlock_all()")
	})
	if err != nil {
		ses.discard() // closing it unlocks too
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, ses.conn.Close())...)
}

// discard closes the connection in place of giving it back to its pool.
func (ses *session) discard() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = Raw(ses.conn, func(pc *pgx.Conn) error { return pc.Close(ctx) })
	_ = ses.conn.Close()
}

func (ses *session) closeTenant() {
	if ses.tenant != nil {
		_ = ses.tenant.Close() // nothing is in progress on it
		ses.tenant = nil
	}
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes a string whatever standard_conforming_strings says.
func literal(s string) string {
	out := []byte(" E'")
	for i := range len(s) {
		switch s[i] {
		case 0: // can't be sent at all
			continue
		case '\'', '\\':
			out = append(out, s[i])
		}
		out = append(out, s[i])
	}
	return string(append(out, '\''))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// code returns the SQLSTATE of err, or "".
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
