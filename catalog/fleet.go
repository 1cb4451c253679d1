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

// MigrateAll brings the main database to the target of Config.MainMigrator,
// and then all tenants to that of Config.Migrator; see [Catalog.MigrateMain]
// and [Catalog.MigrateTenants]. When the main database fails it stops there,
// and the report's status is migrate.StatusHalted.
func (c *Catalog) MigrateAll(ctx context.Context, opt migrate.Options) (*migrate.Report, error) {
	if err := c.Migrate(ctx); err != nil {
		return nil, err
	}
	var main *migrate.Result
	if c.cfg.MainMigrator != nil && !opt.DryRun {
		res, err := c.MigrateMain(ctx, opt)
		if err != nil {
			return &migrate.Report{Status: migrate.StatusHalted, Reason: err.Error(), Main: &res}, err
		}
		main = &res
	}
	if c.cfg.Migrator == nil {
		return &migrate.Report{Status: migrate.StatusDone, Main: main}, nil
	}
	report, err := c.MigrateTenants(ctx, opt)
	if report != nil {
		report.Main = main
	}
	return report, err
}

// MigrateMain brings the main database to the target of Config.MainMigrator.
// One process does it, and the others wait. Of opt, the timeouts are used.
func (c *Catalog) MigrateMain(ctx context.Context, opt migrate.Options) (migrate.Result, error) {
	if c.cfg.MainMigrator == nil {
		return migrate.Result{}, &tenancy.Error{Op: "migrate", Detail: "Config.MainMigrator is not set"}
	}
	if c.cfg.MainLocker == nil {
		return migrate.Result{}, &tenancy.Error{Op: "migrate", Detail: "none of Config.Servers can lock the main database",
			Hint: "set Config.MainLocker: tenancypg.Engine{} or tenancysqlite.Engine{}"}
	}
	return migrate.Main(ctx, c.store.db, c.cfg.MainLocker, c.cfg.MainMigrator, opt)
}

// MigrateTenants brings all tenants to the target of Config.Migrator: those
// that are active, suspended, or ready for somebody. Any number of processes
// may call it at the same time: they share one run, and the report of each
// shows what all have done. It is safe to call at every start: with nothing to
// do it costs one query of the main database.
//
// A tenant is leased in the catalog while it is migrated, and locked in its own
// database. Whoever takes a lease over that has run out ends the session of who
// had it. A tenant that is created meanwhile by an older program gets its turn
// too. See migrate.Run for the errors.
//
// A tenant whose migration failed in a way that does not go away by itself
// needs attention: later runs of the same migrations leave it out, and report
// it, until Options.Retry says otherwise. Other migrations try it again.
func (c *Catalog) MigrateTenants(ctx context.Context, opt migrate.Options) (*migrate.Report, error) {
	if c.cfg.Migrator == nil {
		return nil, &tenancy.Error{Op: "migrate", Detail: "Config.Migrator is not set"}
	}
	// What waits for a lock must be over before another takes the tenant over.
	switch {
	case opt.LockTimeout == 0:
		opt.LockTimeout = min(5*time.Second, c.cfg.Lease/2)
	case opt.LockTimeout < 0, opt.LockTimeout >= c.cfg.Lease:
		return nil, &tenancy.Error{Op: "migrate", Detail: "LockTimeout must be shorter than Config.Lease, " + c.cfg.Lease.String()}
	}
	return migrate.Run(ctx, fleetSource{c}, c.cfg.Migrator, opt)
}

// MigrateTenant brings one tenant to the target, if it is not there. When
// another process is at it, it waits. It is what tenancy.SchemaRange.Migrate
// wants.
func (c *Catalog) MigrateTenant(ctx context.Context, id string) error {
	report, err := c.MigrateTenants(ctx, migrate.Options{Only: []string{id}})
	if report != nil && len(report.Tenants) == 1 && report.Tenants[0].Error != "" {
		return fmt.Errorf("%w: %s", err, report.Tenants[0].Error)
	}
	return err
}

// HaltMigrations ends the runs that are going on, in all processes: who has its
// turn ends it, and no tenant gets one any more. Those migrations are not run
// again without migrate.Options.Retry; others are. It returns how many runs it
// has ended.
func (c *Catalog) HaltMigrations(ctx context.Context, reason string) (int, error) {
	if reason == "" {
		reason = "halted by hand"
	}
	n, err := c.store.exec(ctx, "UPDATE "+runsTable+" SET halted = ? WHERE ended_at IS NULL AND halted = ''"+
		" AND EXISTS (SELECT 1 FROM "+membersTable+" WHERE run = id AND until >= "+c.store.d.nowMS+")", reason)
	if err != nil {
		return 0, c.mainError("halt", err)
	}
	return int(n), nil
}

// fleetSource is the catalog as a migrate.Source.
type fleetSource struct{ c *Catalog }

// Begin implements migrate.Source.
func (s fleetSource) Begin(ctx context.Context, want migrate.Want) (migrate.Ledger, *migrate.Report, error) {
	c := s.c
	if want.Retry {
		if err := c.Migrate(ctx); err != nil {
			return nil, nil, err
		}
	}
	b := &book{c: c, want: want, member: newOwner(), places: make(chan struct{}, 2)}
	report, err := b.look(ctx)
	if err != nil {
		return nil, nil, c.mainError("migrate", err)
	}
	switch {
	case want.DryRun:
		err := b.fill(ctx, report, true)
		return nil, report, err
	case b.pending == 0 && (b.attention == 0 || !want.Retry):
		if b.attention > 0 {
			err = b.fill(ctx, report, false)
		}
		return nil, report, err
	}
	if err := b.join(ctx); err != nil {
		if errors.Is(err, migrate.ErrHalted) {
			report.Status, report.Reason, report.Left = migrate.StatusHalted, b.halted, b.pending
			return nil, report, err
		}
		return nil, nil, c.mainError("migrate", err)
	}
	return b, nil, nil
}

// book is a run, as one process takes part in it.
type book struct {
	c        *Catalog
	want     migrate.Want
	run      int64
	member   string
	canaries []string
	halted   string
	began    time.Time
	// places bounds what the run asks of the main database at a time to what
	// database/sql keeps open when nobody has said otherwise
	// (database/sql.defaultMaxIdleConns): more would connect anew each time.
	places chan struct{}
	// pending are the tenants that can be given out, and attention those that
	// need it, when the run was begun.
	pending, attention int

	mu        sync.Mutex // guards the rest
	skipped   map[string]string
	renewed   time.Duration // when the member's row was
	waitFor   []string      // uids of tenants that may come out behind
	waitUntil time.Duration
}

// behind says which rows are not at the target; two arguments more.
const behind = "(version < ? OR version = ? AND fingerprint <> ?)"

// fleetStates are those in which a tenant is migrated; inFleet says it in SQL,
// in the words of an index.
var fleetStates = []State{Active, Suspended, Ready}

const inFleet = "state IN ('active', 'suspended', 'ready')"

func (b *book) behindArgs() []any {
	return []any{b.want.Target, b.want.Target, b.want.Fingerprint}
}

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

// look counts the fleet, by one query.
func (b *book) look(ctx context.Context) (*migrate.Report, error) {
	s := b.c.store
	only, onlyArgs := among(b.want.Only)
	query := "SELECT count(*), COALESCE(sum(CASE WHEN version > ? THEN 1 ELSE 0 END), 0)," +
		" COALESCE(sum(CASE WHEN " + behind + " AND attention = ? THEN 1 ELSE 0 END), 0)," +
		" COALESCE(sum(CASE WHEN " + behind + " AND attention <> ? THEN 1 ELSE 0 END), 0), " + s.d.nowMS +
		" FROM " + tenantsTable + " WHERE " + inFleet + only
	args := []any{b.want.Target}
	args = append(append(args, b.behindArgs()...), b.want.Fingerprint)
	args = append(append(args, b.behindArgs()...), b.want.Fingerprint)
	var all, ahead int
	var now int64
	if err := s.db.QueryRowContext(ctx, s.d.rebind(query), append(args, onlyArgs...)...).
		Scan(&all, &ahead, &b.attention, &b.pending, &now); err != nil {
		return nil, err
	}
	b.began = time.UnixMilli(now)
	return &migrate.Report{Target: b.want.Target, Fingerprint: b.want.Fingerprint, Began: b.began,
		UpToDate: all - ahead - b.attention - b.pending, Ahead: ahead}, nil
}

// join takes part in the run of these migrations that others are at, or begins
// one.
func (b *book) join(ctx context.Context) error {
	s := b.c.store
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	// One at a time: several begin one run.
	if _, err := tx.ExecContext(ctx, "UPDATE "+catalogTable+" SET one = one"); err != nil {
		return err
	}
	var canaries string
	var ended, live bool
	err = tx.QueryRowContext(ctx, s.d.rebind("SELECT id, halted, canaries, ended_at IS NOT NULL,"+
		" EXISTS (SELECT 1 FROM "+membersTable+" WHERE run = id AND until >= "+s.d.nowMS+")"+
		" FROM "+runsTable+" WHERE fingerprint = ? ORDER BY id DESC LIMIT 1"), b.want.Fingerprint).
		Scan(&b.run, &b.halted, &canaries, &ended, &live)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		ended = true
	case err != nil:
		return err
	case b.halted != "" && !b.want.Retry:
		return fmt.Errorf("%w: %s", migrate.ErrHalted, b.halted)
	}
	if ended || !live || b.halted != "" {
		b.canaries = b.want.Canaries
		if err := b.begin(ctx, tx); err != nil {
			return err
		}
	} else if err := json.Unmarshal([]byte(canaries), &b.canaries); err != nil {
		return fmt.Errorf("the canaries of run %d: %w", b.run, err)
	}
	b.halted = ""
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

// begin writes a new run, and forgets old ones.
func (b *book) begin(ctx context.Context, tx *sql.Tx) error {
	const keep = 100
	s := b.c.store
	if _, err := tx.ExecContext(ctx, s.d.rebind("UPDATE "+runsTable+" SET ended_at = "+s.d.now+" WHERE fingerprint = ? AND ended_at IS NULL"),
		b.want.Fingerprint); err != nil {
		return err
	}
	canaries, err := json.Marshal(slices.Concat([]string{}, b.canaries))
	if err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, s.d.rebind("INSERT INTO "+runsTable+" (target, fingerprint, canaries) VALUES (?, ?, ?) RETURNING id"),
		b.want.Target, b.want.Fingerprint, string(canaries)).Scan(&b.run); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, s.d.rebind("DELETE FROM "+membersTable+" WHERE run <= ?"), b.run-keep)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, s.d.rebind("DELETE FROM "+runsTable+" WHERE id <= ? AND ended_at IS NOT NULL"), b.run-keep)
	return err
}
