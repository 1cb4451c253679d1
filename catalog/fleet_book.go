package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// The methods of a book are those of migrate.Ledger.

// Canaries implements migrate.Ledger.
func (b *book) Canaries() []string { return b.canaries }

// stage limits a query to the tenants of this process's part in the run.
func (b *book) stage(canaries bool) (where string, args []any) {
	where, args = among(b.want.Only)
	if canaries {
		more, moreArgs := among(b.canaries)
		where, args = where+more, append(args, moreArgs...)
	}
	return where, args
}

// left says which rows are still to be done in the run: those that somebody is
// at, and those that are waiting.
func (b *book) left() (where string, args []any) {
	now := b.c.store.d.nowMS
	where = inFleet + " AND " + behind + " AND attention <> ? AND (lease_until >= " + now +
		" OR task = '' AND (run <> ? OR attempts < ?))"
	return where, append(b.behindArgs(), b.want.Fingerprint, b.run, b.want.Attempts)
}

// Servers implements migrate.Ledger. When nothing is left it waits for tenants
// that are being made or moved: an older program may have begun that, and then
// they are behind when they come out.
func (b *book) Servers(ctx context.Context, canaries bool) ([]string, error) {
	for {
		names, err := b.servers(ctx, canaries)
		if err != nil || len(names) > 0 || canaries {
			return names, err
		}
		if settled, err := b.settled(ctx); settled || err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(settlePause):
		}
	}
}

// settlePause is how often it is looked whether tenants have come out.
const settlePause = 100 * time.Millisecond

func (b *book) servers(ctx context.Context, canaries bool) (names []string, err error) {
	where, args := b.left()
	stage, stageArgs := b.stage(canaries)
	rows, err := b.c.store.db.QueryContext(ctx, b.c.store.d.rebind("SELECT DISTINCT server FROM "+tenantsTable+
		" WHERE "+where+stage+" ORDER BY server"), append(args, stageArgs...)...)
	if err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	b.mu.Lock()
	defer b.mu.Unlock()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, b.c.mainError("migrate", err)
		}
		if _, ok := b.skipped[name]; !ok {
			names = append(names, name)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	return names, nil
}

// settled reports whether no tenant is being made or moved any more of those
// that were when it was asked first: what begins later is not waited for, so
// that the run ends.
func (b *book) settled(ctx context.Context) (bool, error) {
	only, args := among(b.want.Only)
	var busy []string
	if err := b.c.store.each(ctx, "state IN ('provisioning', 'moving') AND lease_until >= "+b.c.store.d.nowMS+only, args, func(t Tenant) error {
		busy = append(busy, t.UID)
		return nil
	}); err != nil {
		return false, b.c.mainError("migrate", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waitUntil == 0 {
		b.waitFor, b.waitUntil = busy, monotonic()+b.c.cfg.Wait
	}
	b.waitFor = slices.DeleteFunc(b.waitFor, func(uid string) bool { return !slices.Contains(busy, uid) })
	return len(b.waitFor) == 0 || monotonic() > b.waitUntil, nil
}

// taken marks the owner of a lease that was taken from somebody who was silent.
const taken = "!"

// claimTimeout bounds a claim, which the end of the caller's ctx does not.
const claimTimeout = 10 * time.Second

// Claim implements migrate.Ledger: one UPDATE, which passes over the rows that
// others are about to take.
func (b *book) Claim(ctx context.Context, server string, canaries bool) (migrate.Claim, error) {
	s := b.c.store
	if _, ok := b.c.cfg.Servers[server]; !ok {
		return migrate.Claim{}, b.Skip(ctx, server, ErrUnknownServer.Error()+": Config.Servers has no "+server)
	}
	done, err := takePlace(ctx, b.places)
	if err != nil {
		return migrate.Claim{}, err
	}
	defer done()
	owner, began := newOwner(), monotonic()
	stage, stageArgs := b.stage(canaries)
	args := []any{owner, taken, b.c.cfg.Lease.Milliseconds(), b.run, b.run, b.run, server}
	args = append(append(args, b.behindArgs()...), b.want.Fingerprint, b.run, b.want.Attempts)
	args = append(append(args, stageArgs...), b.run)
	// The end of ctx does not cut this short: a lease that was written, and whose
	// answer was not read, is nobody's, and others wait until it runs out. Who
	// gets one after the end of ctx gives it back at once.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTimeout)
	defer cancel()
	row, err := s.one(asking, "UPDATE "+tenantsTable+" SET lease_owner = ? || CASE WHEN lease_owner = '' THEN '' ELSE ? END,"+
		" lease_until = "+s.d.nowMS+" + ?, attempts = CASE WHEN run = ? THEN attempts + 1 ELSE 1 END,"+
		" outcome = CASE WHEN run = ? THEN outcome ELSE '' END, failure = '', run = ?, revision = revision + 1, updated_at = "+s.d.now+
		" WHERE uid = (SELECT uid FROM "+tenantsTable+" WHERE server = ? AND "+inFleet+" AND task = '' AND "+behind+
		" AND attention <> ? AND (run <> ? OR attempts < ? AND next_at <= "+s.d.nowMS+")"+
		" AND (lease_owner = '' OR lease_until < "+s.d.nowMS+")"+stage+
		" AND EXISTS (SELECT 1 FROM "+runsTable+" WHERE id = ? AND halted = '' AND ended_at IS NULL)"+
		" ORDER BY version, uid LIMIT 1"+s.d.skipLocked+") RETURNING "+s.rowColumns(), args...)
	if err == nil {
		return migrate.Claim{Job: &job{b: b, t: row, owner: row.leaseOwner, steal: strings.HasSuffix(row.leaseOwner, taken), since: began}}, nil
	}
	if err != errNoRow { //nolint:errorlint // it is this very one
		return migrate.Claim{}, b.c.mainError("migrate", err)
	}
	return b.none(ctx, server, canaries)
}

// none says why there is nothing to be given out.
func (b *book) none(ctx context.Context, server string, canaries bool) (migrate.Claim, error) {
	s := b.c.store
	where, args := b.left()
	stage, stageArgs := b.stage(canaries)
	all := []any{b.run, b.run, server}
	all = append(append(all, args...), stageArgs...)
	var halted sql.NullString
	var n int
	var next sql.NullInt64
	err := s.db.QueryRowContext(ctx, s.d.rebind("SELECT (SELECT halted FROM "+runsTable+" WHERE id = ?), count(*),"+
		" min(CASE WHEN lease_until >= "+s.d.nowMS+" THEN lease_until WHEN run = ? THEN next_at ELSE 0 END) - "+s.d.nowMS+
		" FROM "+tenantsTable+" WHERE server = ? AND "+where+stage), all...).Scan(&halted, &n, &next)
	switch {
	case err != nil:
		return migrate.Claim{}, b.c.mainError("migrate", err)
	case halted.String != "":
		return migrate.Claim{Halted: halted.String}, nil
	case n == 0:
		return migrate.Claim{}, nil
	}
	return migrate.Claim{Next: max(time.Millisecond, time.Duration(next.Int64)*time.Millisecond)}, nil
}

// Skip implements migrate.Ledger. It concerns this process only: another one
// may reach the server.
func (b *book) Skip(_ context.Context, server, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.skipped == nil {
		b.skipped = map[string]string{}
	}
	b.skipped[server] = reason
	return nil
}

// Halt implements migrate.Ledger.
func (b *book) Halt(ctx context.Context, reason string) error {
	_, err := b.c.store.exec(ctx, "UPDATE "+runsTable+" SET halted = ? WHERE id = ? AND halted = ''", reason, b.run)
	return err
}

// Counts implements migrate.Ledger. It also says that this process is alive.
func (b *book) Counts(ctx context.Context) (n migrate.Counts, err error) {
	s := b.c.store
	b.mu.Lock()
	due := monotonic()-b.renewed > b.c.cfg.Lease/4
	b.mu.Unlock()
	if due {
		began := monotonic()
		if _, err := s.exec(ctx, "UPDATE "+membersTable+" SET until = "+s.d.nowMS+" + ? WHERE run = ? AND member = ?",
			b.c.cfg.Lease.Milliseconds(), b.run, b.member); err != nil {
			return n, b.c.mainError("migrate", err)
		}
		b.mu.Lock()
		b.renewed = began
		b.mu.Unlock()
	}
	left, leftArgs := b.left()
	only, onlyArgs := among(b.want.Only)
	isDone := "run = ? AND NOT " + behind
	args := append([]any{b.run}, b.behindArgs()...)
	args = append(args, leftArgs...)
	args = append(append(args, b.run), b.behindArgs()...)
	args = append(append(args, b.run, b.want.Fingerprint, b.want.Attempts), onlyArgs...)
	// Failed are those that are neither done nor left.
	err = s.db.QueryRowContext(ctx, s.d.rebind("SELECT COALESCE(sum(CASE WHEN "+isDone+" THEN 1 ELSE 0 END), 0),"+
		" COALESCE(sum(CASE WHEN "+left+" THEN 1 ELSE 0 END), 0),"+
		" COALESCE(sum(CASE WHEN run = ? AND "+behind+" AND lease_until < "+s.d.nowMS+" AND run = ? AND (attention = ? OR attempts >= ?) THEN 1 ELSE 0 END), 0)"+
		" FROM "+tenantsTable+" WHERE state <> 'deleted'"+only), args...).Scan(&n.Done, &n.Left, &n.Failed)
	if err != nil {
		return n, b.c.mainError("migrate", err)
	}
	return n, nil
}

// Results implements migrate.Ledger.
func (b *book) Results(ctx context.Context, ids []string) (all []migrate.Result, err error) {
	where, args := among(ids)
	err = b.c.store.each(ctx, "state <> 'deleted' AND run = ?"+where, append([]any{b.run}, args...), func(t Tenant) error {
		all = append(all, b.result(t))
		return nil
	})
	if err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	return all, nil
}

// End implements migrate.Ledger.
func (b *book) End(ctx context.Context) (*migrate.Report, error) {
	s := b.c.store
	report, err := b.look(ctx)
	if err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	report.Run = fmt.Sprint(b.run)
	if err := s.db.QueryRowContext(ctx, s.d.rebind("SELECT halted FROM "+runsTable+" WHERE id = ?"), b.run).Scan(&report.Reason); err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	if report.Reason != "" {
		report.Status = migrate.StatusHalted
	}
	if err := b.fill(ctx, report, false); err != nil {
		return nil, err
	}
	if _, err := s.exec(ctx, "DELETE FROM "+membersTable+" WHERE run = ? AND member = ?", b.run, b.member); err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	// Whoever is the last closes it.
	if _, err := s.exec(ctx, "UPDATE "+runsTable+" SET ended_at = "+s.d.now+" WHERE id = ? AND ended_at IS NULL"+
		" AND NOT EXISTS (SELECT 1 FROM "+membersTable+" WHERE run = id AND until >= "+s.d.nowMS+")", b.run); err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	return report, nil
}

// fill lists the tenants that the run has to do with.
func (b *book) fill(ctx context.Context, report *migrate.Report, pending bool) error {
	only, onlyArgs := among(b.want.Only)
	args := append([]any{b.run}, b.behindArgs()...)
	err := b.c.store.each(ctx, "(run = ? AND run <> 0 OR "+inFleet+" AND "+behind+")"+only, append(args, onlyArgs...), func(t Tenant) error {
		res := b.result(t)
		switch {
		case t.Version > report.Target:
			return nil // look has counted it as ahead
		case res.Status == migrate.StatusDone && slices.Contains(fleetStates, t.State):
			report.UpToDate-- // where look has counted it
		case res.Status == migrate.StatusPending && !pending:
			report.Left++
			return nil
		}
		report.Tenants = append(report.Tenants, res)
		return nil
	})
	if err != nil {
		return b.c.mainError("migrate", err)
	}
	return nil
}

// result says what became of a tenant in the run.
func (b *book) result(t Tenant) migrate.Result {
	res := migrate.Result{Tenant: t.name(), Server: t.Server, From: t.Version, To: t.Version}
	ours := t.run == b.run && b.run != 0
	if ours {
		if t.Migration != nil {
			res = *t.Migration
			res.Tenant, res.Server = t.name(), t.Server
		}
		res.Attempts = t.attempts
	}
	isBehind := t.Version < b.want.Target || t.Version == b.want.Target && t.Fingerprint != b.want.Fingerprint
	skip := func(why string) migrate.Result {
		res.Status, res.Error = migrate.StatusSkipped, why
		return res
	}
	b.mu.Lock()
	lost, given := b.skipped[t.Server]
	b.mu.Unlock()
	switch {
	case !isBehind:
		res.Status = migrate.StatusDone
	case t.State == Deleting || t.State == Deleted:
		return skip("it was removed meanwhile")
	case t.Attention == b.want.Fingerprint && ours:
		res.Status = migrate.StatusFailed
	case t.Attention == b.want.Fingerprint:
		why := "it needs attention since an earlier run"
		if t.Migration != nil {
			res.SQLState, res.Version = t.Migration.SQLState, t.Migration.Version
			why += ": " + t.Migration.Error
		}
		return skip(why)
	case t.leased:
		res.Status = migrate.StatusPending
	case t.Task != "":
		return skip(fmt.Sprintf("its %s is unfinished; call Resume", t.Task))
	case ours && t.attempts >= b.want.Attempts:
		res.Status = migrate.StatusFailed
		if res.Error == "" {
			res.Error = "the processes that were at it died"
		}
	case given:
		return skip(lost)
	default:
		res.Status = migrate.StatusPending
	}
	return res
}
