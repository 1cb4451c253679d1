package catalog

import (
	"context"
	"database/sql"
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
	halted := ""
	if !b.evenHalted {
		halted = " AND NOT EXISTS (SELECT 1 FROM " + haltsTable + " WHERE fingerprint = ?)"
		args = append(args, b.want.Fingerprint)
	}
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
		" AND EXISTS (SELECT 1 FROM "+runsTable+" WHERE id = ? AND ended_at IS NULL)"+halted+
		// By the index: the rows that are done are at its other end.
		" ORDER BY version LIMIT 1"+s.d.skipLocked+") RETURNING "+s.rowColumns(), args...)
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
	all := append([]any{b.want.Fingerprint, b.run, b.run, server}, args...)
	var halted, ended sql.NullString
	var n int
	var next sql.NullInt64
	err := s.db.QueryRowContext(ctx, s.d.rebind("SELECT (SELECT reason FROM "+haltsTable+" WHERE fingerprint = ?),"+
		" (SELECT note FROM "+runsTable+" WHERE id = ? AND ended_at IS NULL), count(*),"+
		" min(CASE WHEN lease_until >= "+s.d.nowMS+" THEN lease_until WHEN run = ? THEN next_at ELSE 0 END) - "+s.d.nowMS+
		" FROM "+tenantsTable+" WHERE server = ? AND "+where+stage), append(all, stageArgs...)...).Scan(&halted, &ended, &n, &next)
	switch {
	case err != nil:
		return migrate.Claim{}, b.c.mainError("migrate", err)
	case halted.String != "" && !b.evenHalted:
		return migrate.Claim{Halted: halted.String}, nil
	case !ended.Valid:
		return migrate.Claim{Ended: b.why(ctx)}, nil
	case n == 0:
		return migrate.Claim{}, nil
	}
	return migrate.Claim{Next: max(time.Millisecond, time.Duration(next.Int64)*time.Millisecond)}, nil
}

// why says why the run was ended by others.
func (b *book) why(ctx context.Context) string {
	var note string
	err := b.c.store.db.QueryRowContext(ctx, b.c.store.d.rebind("SELECT note FROM "+runsTable+" WHERE id = ?"), b.run).Scan(&note)
	if err != nil || note == "" {
		note = "this process was silent for so long that others have ended the run"
	}
	return note
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
	_, err := b.c.store.exec(ctx, "INSERT INTO "+haltsTable+" (fingerprint, reason) VALUES (?, ?) ON CONFLICT DO NOTHING",
		b.want.Fingerprint, printableText(reason))
	return err
}

// Counts implements migrate.Ledger.
func (b *book) Counts(ctx context.Context) (n migrate.Counts, err error) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	s := b.c.store
	left, leftArgs := b.left()
	only, onlyArgs := among(b.want.Only)
	args := append([]any{b.run}, b.behindArgs()...)
	args = append(append(args, leftArgs...), b.run)
	args = append(append(args, b.behindArgs()...), b.want.Fingerprint, b.want.Attempts)
	err = s.db.QueryRowContext(ctx, s.d.rebind("SELECT COALESCE(sum(CASE WHEN run = ? AND NOT "+behind+" THEN 1 ELSE 0 END), 0),"+
		" COALESCE(sum(CASE WHEN "+left+" THEN 1 ELSE 0 END), 0),"+
		" COALESCE(sum(CASE WHEN run = ? AND "+behind+" AND lease_until < "+s.d.nowMS+" AND (attention = ? OR attempts >= ?) THEN 1 ELSE 0 END), 0)"+
		" FROM "+tenantsTable+" WHERE state <> 'deleted'"+only), append(args, onlyArgs...)...).Scan(&n.Done, &n.Left, &n.Failed)
	if err != nil {
		return n, b.c.mainError("migrate", err)
	}
	return n, nil
}

// countTimeout bounds a look that is only for people.
const countTimeout = 5 * time.Second

// End implements migrate.Ledger.
func (b *book) End(ctx context.Context) (*migrate.Report, error) {
	defer b.away()
	report, err := b.report(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.leave(ctx); err != nil {
		return nil, b.c.mainError("migrate", err)
	}
	return report, nil
}

// leave ends this process's part. Whoever is the last closes the run: nobody
// joins it meanwhile.
func (b *book) leave(ctx context.Context) error {
	s := b.c.store
	tx, err := s.inTurn(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, s.d.rebind("DELETE FROM "+membersTable+" WHERE run = ? AND member = ?"), b.run, b.member); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, s.d.rebind("UPDATE "+runsTable+" SET ended_at = "+s.d.now+" WHERE id = ? AND ended_at IS NULL"+
		" AND NOT EXISTS (SELECT 1 FROM "+membersTable+" WHERE run = id AND until >= "+s.d.nowMS+")"), b.run); err != nil {
		return err
	}
	return tx.Commit()
}
