package tenancypg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// The locks of migrations, which are in each database and the same in all.
// No database's name holds a NUL, so that these are no session's.
var (
	// migrationKey is locked by who migrates.
	migrationKey = lockKey("\x00migrate")
	// besideKey is locked, in shared mode, by his second connection: after the
	// first one is lost, that can go on with a long statement.
	besideKey = lockKey("\x00migrate beside")
)

// waitingName is the application_name of a connection that does not have the
// lock yet. It is not a session's: whoever steals the lock does not mean those
// who wait for it.
const waitingName = "tenancy waiting"

// What try found, and what it did not get.
const (
	statePooler   = "pooler"
	stateStandby  = "standby"
	stateStranger = "stranger" // another tenant's database
	stateHeld     = "held"
	stateBeside   = "beside" // locked, but the last holder's second connection is there
	stateOpen     = "open"
)

// try asks all that there is to know of a connection, and takes the lock if
// nothing speaks against it, in one round trip. A lock or a setting that was
// made before it is known that there is no pooler would stay with the pooler's
// connection.
func (c *lockConnector) try(ctx context.Context, pc *pgconn.PgConn) (state string, err error) {
	var columns, from, stranger string
	want := c.lock.Identity
	if want != (tenancy.Identity{}) {
		columns = ", uid, generation"
		from = " FROM " + metaTable + " LIMIT 1" // of two rows, CASE would run for each
		stranger = fmt.Sprintf("WHEN uid::text IS DISTINCT FROM %s OR generation::text IS DISTINCT FROM '%d' THEN '%s' ",
			literal(want.UID), want.Generation, stateStranger)
	}
	// CASE evaluates no more than it needs, in this order, as all of it is
	// volatile (the manual, section 4.2.14).
	set := append(endless(pc), setting{"application_name", c.token})
	look := fmt.Sprintf("CASE WHEN pg_backend_pid() <> %d THEN '%s' ", pc.PID(), statePooler)
	if c.lock.ReadOnly {
		look += stranger + "ELSE " + done(stateOpen, append(set, setting{"default_transaction_read_only", "on"}))
	} else {
		look += "WHEN pg_is_in_recovery() THEN '" + stateStandby + "' " + stranger +
			fmt.Sprintf("WHEN NOT pg_try_advisory_lock(%d) THEN %s ", migrationKey, done(stateHeld, nil)) +
			fmt.Sprintf("WHEN NOT pg_try_advisory_lock(%d) THEN %s ", besideKey, done(stateBeside, set)) +
			fmt.Sprintf("WHEN pg_advisory_unlock(%d) THEN %s", besideKey, done(stateOpen, set))
	}
	row, err := readSimple(ctx, pc, "SELECT "+look+" END"+columns+from)
	switch {
	case code(err) == "42703" && columns != "": // a table of that name which is not ours
		return "", wrongDatabase(want, "", "")
	case err != nil:
		return "", err
	case row == nil && columns != "":
		return "", wrongDatabase(want, "", "")
	case row == nil:
		return "", errors.New("the server gave no answer")
	}
	switch state = string(row[0]); state {
	case statePooler:
		return "", fmt.Errorf("%w: %s", migrate.ErrPooler, avoidPooler)
	case stateStandby:
		return "", errors.New("it is on a standby, which can't be written to: name the primary, or several hosts with target_session_attrs=read-write")
	case stateStranger:
		return "", wrongDatabase(want, string(row[1]), string(row[2]))
	}
	return state, nil
}

func wrongDatabase(want tenancy.Identity, uid, generation string) error {
	if uid == "" && generation == "" {
		return fmt.Errorf("%w: it does not say whose it is: %s has no row, want %s", tenancy.ErrWrongDatabase, tenancy.MetaTable, want)
	}
	return fmt.Errorf("%w: %s says %s/%s, want %s", tenancy.ErrWrongDatabase, tenancy.MetaTable, uid, generation, want)
}

// setting is one that a query makes.
type setting struct{ name, value string }

// done is the expression of a state, which makes settings as well.
func done(state string, set []setting) string {
	out := "'" + state + "'"
	for _, s := range set {
		out += fmt.Sprintf(" || left(set_config('%s', '%s', false), 0)", s.name, s.value)
	}
	return out
}

// endless are the settings that keep the server from ending a connection
// because it is idle, or a transaction because it is long. In the startup packet
// they would be refused by a server that does not know them yet.
func endless(pc *pgconn.PgConn) (set []setting) {
	var version int // 15 of "15.4 (Debian 15.4-1)", 18 of "18beta1"
	_, _ = fmt.Sscanf(pc.ParameterStatus("server_version"), "%d", &version)
	if version >= 14 {
		set = append(set, setting{"idle_session_timeout", "0"})
	}
	if version >= 17 {
		set = append(set, setting{"transaction_timeout", "0"})
	}
	return set
}

// holders is a query for the pids of those that have the lock. A bigint key
// shows as two halves and objsubid 1 (the manual's page on pg_locks).
func holders(key int64) string {
	return fmt.Sprintf(`
		SELECT pid FROM pg_locks
		WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = %d::bigint::oid AND objid = %d::bigint::oid
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
		uint64(key)>>32, uint64(key)&0xffffffff)
}

// ownSessions is a query for the connections of this role that sessions, and
// migrations, have made in this database.
const ownSessions = `
		SELECT pid FROM pg_stat_activity
		WHERE datname = current_database() AND usename = session_user
			AND (starts_with(application_name, '` + sessionName + `') OR starts_with(application_name, '` + migrationName + `'))`

// endAll terminates the backends that the query who lists, and returns when
// they are gone.
func endAll(ctx context.Context, pc *pgconn.PgConn, who string) error {
	row, err := readSimple(ctx, pc, `
		WITH who AS MATERIALIZED (SELECT pid FROM (`+who+`) w WHERE pid <> pg_backend_pid())
		SELECT string_agg(pid::text, ', ') FROM who WHERE pg_terminate_backend(pid)`)
	if err != nil || row == nil || row[0] == nil {
		return err // there were none
	}
	deadline := time.Now().Add(goneTimeout)
	for pause := pollFirst; ; pause = min(2*pause, poll) {
		left, err := readSimple(ctx, pc, "SELECT string_agg(pid::text, ', ') FROM pg_stat_activity WHERE pid IN ("+string(row[0])+")")
		switch {
		case err != nil:
			return err
		case left == nil || left[0] == nil:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%w: pid %s, which was terminated and does not end", migrate.ErrLocked, left[0])
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}
