package tenancypg

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// Fence implements [catalog.Session].
//
// Where the application has a role of its own, CONNECT is revoked from it, from
// PUBLIC and from every other role that has it but the database's owner and
// the administrator; Open gives it back to the application, and
// ServerConfig.Prepare to others. The administrator's connections stay.
//
// Where that does not keep the application out, because it is the
// administrator, a superuser or the owner by membership, the database refuses
// all connections (ALLOW_CONNECTIONS false). Then DB, Dump, Mark and the like
// let connections in for the moment in which they make their own, and end any
// other that slipped in. For that moment only the generation that the catalog
// raised keeps the application's pools out.
//
// A superuser's session can't be ended by an administrator who is none, and is
// a [catalog.ErrNotFenced] that names it.
func (ses *session) Fence(ctx context.Context, drain time.Duration) error {
	ses.closeTenant()
	doing := fmt.Sprintf("fencing %q", ses.name)
	f, err := ses.facts(ctx, ses.name)
	if err != nil {
		return explain(doing, err)
	}
	if !f.there || f.invalid {
		return nil // nobody can connect
	}
	everyone, err := ses.shut(ctx, f)
	if err != nil {
		return explain(doing, err)
	}
	e := exit{ses: ses, oid: f.oid, keep: allAdmins}
	if everyone {
		e.keep = ses.token
	}
	left, err := e.wait(ctx, drain)
	if err == nil && len(left) > 0 {
		left, err = e.terminate(ctx)
	}
	if err != nil {
		return explain(doing, err)
	}
	if len(left) == 0 {
		// They have no session, and can be committed from another database at
		// any time.
		if p := ses.prepared(ctx); p != "" {
			return explain(doing, fmt.Errorf("%w%s", catalog.ErrNotFenced, p))
		}
		return nil
	}
	hint := ""
	if e.denied {
		hint = "; to end them, the administrator needs membership in pg_signal_backend, and for a superuser's session must be a superuser"
	}
	return explain(doing, fmt.Errorf("%w by %s%s%s", catalog.ErrNotFenced, describe(left), hint, ses.prepared(ctx)))
}

// shut keeps new connections out. everyone says that it had to be everyone's.
func (ses *session) shut(ctx context.Context, f facts) (everyone bool, err error) {
	if !ses.roles.apart || f.owned || !f.allow {
		return true, ses.exec(ctx, "ALTER DATABASE "+ses.ident+" ALLOW_CONNECTIONS false")
	}
	err = ses.admin(ctx, func(pc *pgx.Conn) error {
		rows, err := pc.Query(ctx, `
			SELECT DISTINCT format('%I', r.rolname)
			FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee
			WHERE d.oid = $1 AND a.privilege_type = 'CONNECT' AND a.grantee NOT IN (d.datdba, $2)`, f.oid, ses.roles.admin)
		if err != nil {
			return err
		}
		who, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		who = append(who, "PUBLIC", quote(ses.s.appRole))
		if err := execSimple(ctx, pc, "REVOKE CONNECT ON DATABASE "+ses.ident+" FROM "+strings.Join(who, ", ")+" CASCADE"); err != nil {
			return err
		}
		// A grant that another role gave stays, and so may a membership. Users
		// that BeforeConnect sets are members of the application's role.
		return pc.QueryRow(ctx, `
			SELECT coalesce(bool_or(has_database_privilege(r.oid, $2::oid, 'CONNECT')), false) FROM pg_roles r
			WHERE r.oid = $1 OR r.rolcanlogin AND NOT r.rolsuper AND r.oid <> $3 AND pg_has_role(r.oid, $1::oid, 'USAGE')`,
			ses.roles.app, f.oid, ses.roles.admin).Scan(&everyone)
	})
	if err == nil && everyone {
		err = ses.exec(ctx, "ALTER DATABASE "+ses.ident+" ALLOW_CONNECTIONS false")
	}
	return everyone, err
}

// exit sees to it that the sessions in a database end, after new ones were
// kept out.
type exit struct {
	ses      *session
	oid      uint32
	keep     string // how the application_name of the administrator's sessions that may stay begins
	starting []starting
	listed   bool // starting is known
	locked   bool // ses.mu is held
	denied   bool // a session could not be terminated for want of a right
}

// allAdmins lets all of the administrator's sessions stay; noAdmins none.
const allAdmins, noAdmins = "", "\x01"

// starting is a session that may have passed the check of its rights before
// they were revoked.
type starting struct {
	PID  uint32
	VXID string
}

// sessionOf is a session in the database.
type sessionOf struct {
	PID         uint32
	User        string
	Application string
}

func describe(all []sessionOf) string {
	var b strings.Builder
	for i, s := range all {
		if i == 5 {
			fmt.Fprintf(&b, " and %d more", len(all)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (pid %d, application %q)", s.User, s.PID, s.Application)
	}
	return b.String()
}

// wait waits until no session is left, at most as long as d, and returns those
// that are.
//
// A session that starts up holds a lock on its database from before the check
// of its rights until it shows in pg_stat_activity
// (src/backend/utils/init/postinit.c, InitPostgres: LockSharedObject, then
// CheckMyDatabase and pgstat_bestart). So whoever passed the check before the
// REVOKE was committed has the lock at the first look, or is in
// pg_stat_activity, or has gone: once the first have let go of it, the list of
// sessions is complete. Who takes the lock later is refused; those are not
// waited for, since clients may try without end.
func (e *exit) wait(ctx context.Context, d time.Duration) (left []sessionOf, err error) {
	pause := pollFirst
	for deadline := time.Now().Add(d); ; pause = min(2*pause, poll) {
		left, err = e.look(ctx)
		if err != nil || len(left) == 0 || !time.Now().Before(deadline) {
			return left, err
		}
		if err := sleep(ctx, pause); err != nil {
			return left, err
		}
	}
}

func (e *exit) admin(ctx context.Context, fn func(*pgx.Conn) error) error {
	if e.locked {
		return e.ses.adminLocked(ctx, fn)
	}
	return e.ses.admin(ctx, fn)
}

func (e *exit) look(ctx context.Context) (left []sessionOf, err error) {
	err = e.admin(ctx, func(pc *pgx.Conn) error {
		// 1262 is pg_database itself (src/include/catalog/pg_database.h).
		rows, err := pc.Query(ctx, `
			SELECT pid, virtualtransaction FROM pg_locks
			WHERE locktype = 'object' AND classid = 1262 AND objid = $1 AND database = 0
				AND granted AND pid <> pg_backend_pid()`, e.oid)
		if err != nil {
			return err
		}
		now, err := pgx.CollectRows(rows, pgx.RowToStructByPos[starting])
		if err != nil {
			return err
		}
		if !e.listed {
			e.starting, e.listed = now, true
		}
		still := e.starting[:0:0]
		for _, was := range e.starting {
			for _, is := range now {
				if was == is {
					still = append(still, was)
				}
			}
		}
		e.starting = still

		// Autovacuum's workers have no user, and others' backend_type is
		// hidden from a role without pg_read_all_stats.
		rows, err = pc.Query(ctx, `
			SELECT pid, coalesce(usename::text, usesysid::text), coalesce(application_name, '') FROM pg_stat_activity
			WHERE datid = $1 AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
				AND (backend_type IS NULL OR backend_type IN ('client backend', 'walsender'))
				AND NOT (usesysid = $2 AND starts_with(coalesce(application_name, ''), $3))`, e.oid, e.ses.roles.admin, e.keep)
		if err != nil {
			return err
		}
		left, err = pgx.CollectRows(rows, pgx.RowToStructByPos[sessionOf])
		for _, s := range e.starting {
			left = append(left, sessionOf{PID: s.PID, User: "somebody who is connecting"})
		}
		return err
	})
	return left, err
}

// terminate ends what is left, and returns who does not end.
func (e *exit) terminate(ctx context.Context) (left []sessionOf, err error) {
	for deadline := time.Now().Add(goneTimeout); ; {
		if left, err = e.look(ctx); err != nil || len(left) == 0 {
			return left, err
		}
		ended := false
		for _, s := range left {
			// One by one, since an error of one would spare the others. The
			// number may be another's by now, so it is looked up again.
			err := e.admin(ctx, func(pc *pgx.Conn) error {
				_, err := pc.Exec(ctx, `
					SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE pid = $1 AND (datid = $2 OR datid IS NULL)`, s.PID, e.oid)
				return err
			})
			switch {
			case code(err) == "42501":
				e.denied = true
			case err != nil:
				return left, err
			default:
				ended = true
			}
		}
		if e.denied && !ended || time.Now().After(deadline) {
			return left, nil
		}
		if err := sleep(ctx, poll); err != nil {
			return left, err
		}
	}
}

// prepared names prepared transactions for an error: nothing else shows them,
// and the database can't be dropped while there are any.
func (ses *session) prepared(ctx context.Context) string {
	var gids string
	err := ses.row(ctx, "SELECT coalesce(string_agg(quote_literal(gid), ', '), '') FROM pg_prepared_xacts WHERE database = $1",
		[]any{ses.name}, &gids)
	if err != nil || gids == "" {
		return ""
	}
	return "; prepared transactions are left: " + gids + " (COMMIT or ROLLBACK PREPARED them)"
}
