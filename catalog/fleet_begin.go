package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// fleetSource is the catalog as a migrate.Source.
type fleetSource struct{ c *Catalog }

// book is a run, as one process takes part in it: a migrate.Ledger.
type book struct {
	c        *Catalog
	want     migrate.Want
	run      int64
	member   string
	canaries []string
	began    time.Time // the run, by the main database's clock
	// evenHalted: some tenants are tried again, and all others stay halted.
	evenHalted bool
	// places bounds what the run asks of the main database at a time to what
	// database/sql keeps open when nobody has said otherwise
	// (database/sql.defaultMaxIdleConns): more would connect anew each time.
	places chan struct{}
	// away ends the renewal of this process's membership.
	away func()

	mu        sync.Mutex // guards the rest
	skipped   map[string]string
	waitFor   []string // uids of tenants that may come out behind
	waitUntil time.Duration
}

// behind says which rows are not at the target; see book.behindArgs.
const behind = "(version < ? OR version = ? AND fingerprint <> ?)"

func (b *book) behindArgs() []any {
	return []any{b.want.Target, b.want.Target, b.want.Fingerprint}
}

// isBehind is behind for a row that was read.
func (b *book) isBehind(t Tenant) bool {
	return t.Version < b.want.Target || t.Version == b.want.Target && t.Fingerprint != b.want.Fingerprint
}

// fleetStates are those in which a tenant is migrated; inFleet says it in SQL,
// in the words of an index. One that is moving can't be, but comes back.
var (
	fleetStates   = []State{Active, Suspended, Ready}
	countedStates = append(slices.Clone(fleetStates), Moving)
)

const (
	inFleet = "state IN ('active', 'suspended', 'ready')"
	counted = "state IN ('active', 'suspended', 'ready', 'moving')"
)

// among limits a query to ids.
func among(ids []string) (where string, args []any) {
	if len(ids) == 0 {
		return "", nil
	}
	for _, id := range ids {
		args = append(args, id)
	}
	return " AND id IN (?" + strings.Repeat(", ?", len(ids)-1) + ")", args
}

// Begin implements migrate.Source.
func (s fleetSource) Begin(ctx context.Context, want migrate.Want) (migrate.Ledger, *migrate.Report, error) {
	c := s.c
	if want.Fingerprint == "" {
		return nil, nil, &tenancy.Error{Op: "migrate", Detail: "Config.Migrator has an empty fingerprint",
			Hint: "let Target return one that changes with the migrations"}
	}
	b := &book{c: c, want: want, member: newOwner(), places: make(chan struct{}, 2)}
	seen, err := b.look(ctx)
	switch {
	case err != nil:
		return nil, nil, c.mainError("migrate", err)
	case seen.pending+seen.attention == 0 && seen.all >= len(want.Only) && !want.DryRun:
		if want.Retry && len(want.Only) == 0 { // nothing is left of what was halted
			if _, err := c.store.exec(ctx, "DELETE FROM "+haltsTable+" WHERE fingerprint = ?", want.Fingerprint); err != nil {
				return nil, nil, c.mainError("migrate", err)
			}
		}
		return nil, &migrate.Report{Target: want.Target, Fingerprint: want.Fingerprint, Began: b.began,
			UpToDate: seen.all - seen.ahead, Ahead: seen.ahead}, nil
	case want.DryRun, seen.pending == 0 && (seen.attention == 0 || !want.Retry):
		report, err := b.report(ctx)
		return nil, report, err
	}
	err = b.join(ctx)
	switch {
	case errors.Is(err, migrate.ErrHalted), errors.Is(err, migrate.ErrStopped):
		report, reportErr := b.report(ctx)
		if reportErr != nil {
			return nil, nil, reportErr
		}
		report.Status = migrate.StatusStopped
		if errors.Is(err, migrate.ErrHalted) {
			report.Status = migrate.StatusHalted
		}
		_, report.Reason, _ = strings.Cut(err.Error(), ": ")
		return nil, report, nil
	case err != nil:
		return nil, nil, c.mainError("migrate", err)
	}
	b.stay(ctx)
	return b, nil, nil
}

// seen are numbers of tenants.
type seen struct{ all, ahead, attention, pending int }

// look counts the tenants by one query, and reads the clock.
func (b *book) look(ctx context.Context) (n seen, err error) {
	s := b.c.store
	only, onlyArgs := among(b.want.Only)
	query := "SELECT count(*), COALESCE(sum(CASE WHEN version > ? THEN 1 ELSE 0 END), 0)," +
		" COALESCE(sum(CASE WHEN " + behind + " AND attention = ? THEN 1 ELSE 0 END), 0)," +
		" COALESCE(sum(CASE WHEN " + behind + " AND attention <> ? THEN 1 ELSE 0 END), 0), " + s.d.nowMS +
		" FROM " + tenantsTable + " WHERE " + counted + only
	args := append([]any{b.want.Target}, b.behindArgs()...)
	args = append(append(args, b.want.Fingerprint), b.behindArgs()...)
	args = append(append(args, b.want.Fingerprint), onlyArgs...)
	var now int64
	err = s.db.QueryRowContext(ctx, s.d.rebind(query), args...).Scan(&n.all, &n.ahead, &n.attention, &n.pending, &now)
	b.began = time.UnixMilli(now)
	return n, err
}

// join takes part in the run of these migrations that others are at, or begins
// one.
func (b *book) join(ctx context.Context) error {
	s := b.c.store
	tx, err := s.inTurn(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if err := b.mayBegin(ctx, tx); err != nil {
		return err
	}
	if err := b.enter(ctx, tx); err != nil {
		return err
	}
	if b.want.Retry {
		only, args := among(b.want.Only)
		if _, err := tx.ExecContext(ctx, s.d.rebind("UPDATE "+tenantsTable+" SET attention = '', run = 0 WHERE attention = ?"+only),
			append([]any{b.want.Fingerprint}, args...)...); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, s.d.rebind("INSERT INTO "+membersTable+" (run, member, until) VALUES (?, ?, "+s.d.nowMS+" + ?)"),
		b.run, b.member, b.c.cfg.Lease.Milliseconds()); err != nil {
		return err
	}
	return tx.Commit()
}

// inTurn begins a transaction of those that begin, join and end runs: one at a
// time, by a lock that both databases know.
func (s *store) inTurn(ctx context.Context) (*sql.Tx, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE "+catalogTable+" SET one = one"); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return tx, nil
}

// mayBegin looks what speaks against these migrations.
func (b *book) mayBegin(ctx context.Context, tx *sql.Tx) error {
	s := b.c.store
	var reason string
	err := tx.QueryRowContext(ctx, s.d.rebind("SELECT reason FROM "+haltsTable+" WHERE fingerprint = ?"), b.want.Fingerprint).Scan(&reason)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return err
	case !b.want.Retry:
		return fmt.Errorf("%w: %s", migrate.ErrHalted, reason)
	case len(b.want.Only) > 0:
		b.evenHalted = true
	default:
		if _, err := tx.ExecContext(ctx, s.d.rebind("DELETE FROM "+haltsTable+" WHERE fingerprint = ?"), b.want.Fingerprint); err != nil {
			return err
		}
	}
	var target int64
	err = tx.QueryRowContext(ctx, s.d.rebind("SELECT target FROM "+runsTable+" r WHERE selective = 0 AND target > ? AND ended_at IS NULL AND "+
		s.live("r")+" LIMIT 1"), b.want.Target).Scan(&target)
	if errors.Is(err, sql.ErrNoRows) || len(b.want.Only) > 0 && err == nil {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: a newer program is bringing all tenants to version %d", migrate.ErrStopped, target)
}

// enter finds the run of these migrations, or begins it. A run of some tenants
// is its caller's alone.
func (b *book) enter(ctx context.Context, tx *sql.Tx) error {
	s := b.c.store
	selective := 0
	if len(b.want.Only) > 0 {
		selective = 1
	}
	b.canaries = b.want.Canaries
	if selective == 0 {
		var canaries string
		err := tx.QueryRowContext(ctx, s.d.rebind("SELECT id, canaries FROM "+runsTable+" r WHERE selective = 0 AND fingerprint = ?"+
			" AND ended_at IS NULL AND "+s.live("r")+" ORDER BY id DESC LIMIT 1"), b.want.Fingerprint).Scan(&b.run, &canaries)
		if err == nil {
			return b.shareCanaries(ctx, tx, canaries)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		// Runs that nobody is at, and those whose place this one takes.
		if _, err := tx.ExecContext(ctx, s.d.rebind("UPDATE "+runsTable+" SET ended_at = "+s.d.now+", note = CASE WHEN fingerprint = ?"+
			" THEN 'nobody was at it any more' ELSE 'other migrations, to version ' || CAST(? AS text) || ', have taken its place' END"+
			" WHERE selective = 0 AND ended_at IS NULL AND target <= ?"), b.want.Fingerprint, fmt.Sprint(b.want.Target), b.want.Target); err != nil {
			return err
		}
	}
	canaries, err := json.Marshal(slices.Concat([]string{}, b.canaries))
	if err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, s.d.rebind("INSERT INTO "+runsTable+" (target, fingerprint, selective, canaries) VALUES (?, ?, ?, ?) RETURNING id"),
		b.want.Target, b.want.Fingerprint, selective, string(canaries)).Scan(&b.run); err != nil {
		return err
	}
	return b.forgetRuns(ctx, tx)
}

// shareCanaries: the canaries of a run are those of the first process that
// names some.
func (b *book) shareCanaries(ctx context.Context, tx *sql.Tx, theirs string) error {
	s := b.c.store
	var canaries []string
	if err := json.Unmarshal([]byte(theirs), &canaries); err != nil {
		return fmt.Errorf("the canaries of run %d: %w", b.run, err)
	}
	if len(canaries) > 0 || len(b.canaries) == 0 {
		b.canaries = canaries
		return nil
	}
	ours, err := json.Marshal(b.canaries)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, s.d.rebind("UPDATE "+runsTable+" SET canaries = ? WHERE id = ?"), string(ours), b.run)
	return err
}

// forgetRuns deletes runs that ended long ago. Those of some tenants are many
// where each is migrated on its first use, and say little.
func (b *book) forgetRuns(ctx context.Context, tx *sql.Tx) error {
	const keep = 100
	s := b.c.store
	old := "(selective = 1 AND id <= ? OR selective = 0 AND id NOT IN (SELECT id FROM " + runsTable + " WHERE selective = 0 ORDER BY id DESC LIMIT ?))"
	if _, err := tx.ExecContext(ctx, s.d.rebind("DELETE FROM "+membersTable+" WHERE until < "+s.d.nowMS+
		" AND run IN (SELECT id FROM "+runsTable+" WHERE "+old+")"), b.run-keep, keep); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, s.d.rebind("DELETE FROM "+runsTable+" WHERE "+old+" AND NOT EXISTS (SELECT 1 FROM "+membersTable+
		" WHERE run = id)"), b.run-keep, keep)
	return err
}

// stay renews this process's membership until away is called.
func (b *book) stay(ctx context.Context) {
	s, lease := b.c.store, b.c.cfg.Lease
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	b.away = func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		ticker := time.NewTicker(lease / 4)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			renewing, done := context.WithTimeout(ctx, lease/4)
			// What fails is tried again; in the end others think that this
			// process has died, and Claim says so.
			_, _ = s.exec(renewing, "UPDATE "+membersTable+" SET until = "+s.d.nowMS+" + ? WHERE run = ? AND member = ?",
				lease.Milliseconds(), b.run, b.member)
			done()
		}
	}()
}
