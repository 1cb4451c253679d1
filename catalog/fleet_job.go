package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// DatabaseLocker may be implemented by a [Server] that knows a cheaper way to
// migrate a database than a Session: one connection, with a lock in the
// database itself, under which no session's work is hurt.
type DatabaseLocker interface {
	// LockDatabase opens the database name with the administrator's rights. If
	// it is fenced so that only a session can, the error is migrate.ErrFenced.
	LockDatabase(ctx context.Context, name string, l migrate.Lock) (*migrate.Exclusive, error)
}

// job is one tenant's turn in a run.
type job struct {
	b     *book
	t     Tenant
	owner string // of the lease
	steal bool   // the lease was taken from somebody who is silent
	since time.Duration
}

// Tenant implements migrate.Job.
func (j *job) Tenant() migrate.Result {
	r := migrate.Result{Tenant: j.t.name(), Server: j.t.Server, From: j.t.Version, To: j.t.Version, Attempts: j.t.attempts}
	if j.t.Migration != nil && j.t.attempts > 1 {
		r.From = j.t.Migration.From
	}
	return r
}

// Hold implements migrate.Job: it renews the lease.
func (j *job) Hold(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		j.b.c.keepLease(ctx, j.t.UID, j.owner, func(err error) { cancel(fmt.Errorf("%w: %w", migrate.ErrLost, err)) })
	}()
	return ctx, func() {
		cancel(nil)
		<-kept
	}
}

// Held implements migrate.Job. A lease that was just taken need not be asked
// for: should another have taken the tenant over all the same, because this
// machine was suspended and its clock stood still, then the database's lock and
// mark keep the two apart.
func (j *job) Held(ctx context.Context) error {
	if monotonic()-j.since < j.b.c.cfg.Lease/4 {
		return nil
	}
	return j.ask(ctx)
}

// ask looks into the book whose tenant it is.
func (j *job) ask(ctx context.Context) error {
	s := j.b.c.store
	var one int
	err := s.db.QueryRowContext(ctx, s.d.rebind("SELECT 1 FROM "+tenantsTable+" WHERE uid = ? AND lease_owner = ?"), j.t.UID, j.owner).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return migrate.ErrLost
	}
	if err != nil {
		return fmt.Errorf("%w: %w", migrate.ErrBook, j.b.c.mainError("migrate", err))
	}
	return nil
}

// Open implements migrate.Job. A suspended tenant's database may be fenced so
// that only a session can open it.
func (j *job) Open(ctx context.Context, l migrate.Lock) (*migrate.Exclusive, error) {
	c := j.b.c
	server, err := c.server(j.t.Server)
	if err != nil {
		return nil, err
	}
	l.Identity = tenancy.Identity{UID: j.t.UID, Generation: j.t.Generation}
	l.Wait, l.Steal = c.cfg.Wait, j.steal
	if j.steal && !l.ReadOnly {
		// One that was itself silent must not end its successor's session.
		if err := j.ask(ctx); err != nil {
			return nil, err
		}
	}
	if locker, ok := server.(DatabaseLocker); ok {
		ex, err := locker.LockDatabase(ctx, j.t.Database, l)
		if !errors.Is(err, migrate.ErrFenced) {
			return ex, err
		}
	}
	if err := j.ask(ctx); err != nil && !l.ReadOnly {
		return nil, err
	}
	s, err := c.session(ctx, server, j.t.Database, j.steal)
	if errors.Is(err, ErrBusy) {
		return nil, fmt.Errorf("%w: %w", migrate.ErrLocked, err)
	}
	if err != nil {
		return nil, err
	}
	db, err := j.openIn(ctx, s, l)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &migrate.Exclusive{DB: db, Close: func() error { return errors.Join(db.Close(), s.Close()) }}, nil
}

// SessionLocker may be implemented by a [Session] whose DB can be opened for
// migrations.
type SessionLocker interface {
	// MigrationDB is Session.DB with the timeouts of l, and read-only if it
	// says so.
	MigrationDB(ctx context.Context, l migrate.Lock) (*sql.DB, error)
}

func (j *job) openIn(ctx context.Context, s Session, l migrate.Lock) (*sql.DB, error) {
	owner, err := s.Owner(ctx)
	if err != nil {
		return nil, err
	}
	if owner == (Meta{}) {
		if there, err := s.Exists(ctx); err != nil || !there {
			return nil, errors.Join(errors.New("its database is not there"), err)
		}
	}
	if owner.UID != j.t.UID {
		return nil, fmt.Errorf("%w: it says %s", tenancy.ErrWrongDatabase, owner.Identity)
	}
	if m, ok := s.(SessionLocker); ok {
		return m.MigrationDB(ctx, l)
	}
	return s.DB(ctx)
}

// End implements migrate.Job.
func (j *job) End(ctx context.Context, o migrate.Outcome) (same int, err error) {
	b := j.b
	done, err := takePlace(ctx, b.places)
	if err != nil {
		return 0, err
	}
	defer done()
	o.Error, o.Key = printableText(o.Error), printableText(o.Key)
	o.Tenant = "" // it can be renamed
	outcome, err := json.Marshal(o.Result)
	if err != nil {
		return 0, err
	}
	u := new(set).raw("lease_until = 0, revision = revision + 1").add("version", o.To)
	if !o.Unclean { // otherwise the successor ends what is left, since the name stays
		u.raw("lease_owner = ''")
	}
	switch {
	case o.Status == migrate.StatusDone && o.To == b.want.Target:
		u.add("fingerprint", b.want.Fingerprint).raw("attention = '', failure = ''")
	case o.To != j.t.Version:
		u.raw("fingerprint = ''") // not known
	}
	if o.Status == migrate.StatusFailed && !o.Attention { // it has no further turn
		u.raw("attempts = CASE WHEN attempts < ? THEN ? ELSE attempts END", b.want.Attempts, b.want.Attempts)
	}
	if o.Uncounted {
		u.raw("attempts = attempts - 1")
	} else {
		u.add("outcome", string(outcome))
	}
	if o.Again {
		u.raw("next_at = "+b.c.store.d.nowMS+" + ?", o.After.Milliseconds())
	}
	if o.Attention {
		u.add("attention", b.want.Fingerprint).add("failure", o.Key)
	}
	t, err := b.c.store.change(ctx, u, j.t.UID, "lease_owner = ?", j.owner)
	if errors.Is(err, errLost) {
		return 0, migrate.ErrLost
	}
	if err != nil {
		return 0, b.c.mainError("migrate", err)
	}
	if t.place() != j.t.place() {
		b.c.lookups.news(newsOf(t)...)
	}
	if o.Status != migrate.StatusFailed {
		return 0, nil
	}
	// In all runs of these migrations: a tenant that is migrated on its first use
	// has one of its own.
	err = b.c.store.db.QueryRowContext(ctx, b.c.store.d.rebind("SELECT count(*) FROM "+tenantsTable+
		" WHERE attention = ? AND failure = ? AND state <> 'deleted'"), b.want.Fingerprint, o.Key).Scan(&same)
	return same, err
}

// printableText is what fits into a column of text on every database.
func printableText(s string) string {
	const longest = 4000 // bytes
	return strings.ToValidUTF8(strings.ReplaceAll(s[:min(longest, len(s))], "\x00", ""), "")
}

// Classify implements migrate.Job.
func (j *job) Classify(err error) tenancy.Fault {
	if cl, ok := j.b.c.cfg.Servers[j.t.Server].(Classifier); ok {
		return cl.Classify(err)
	}
	return tenancy.FaultNone
}
