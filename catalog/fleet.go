package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// MigrateAll brings the main database to the target of Config.MainMigrator,
// and then all tenants to that of Config.Migrator; see [Catalog.MigrateMain]
// and [Catalog.MigrateTenants]. When the main database fails it stops there,
// and the report's status is migrate.StatusHalted.
func (c *Catalog) MigrateAll(ctx context.Context, opt migrate.Options) (*migrate.Report, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if err := c.Migrate(ctx); err != nil {
		return nil, err
	}
	report := &migrate.Report{Status: migrate.StatusDone}
	if c.cfg.MainMigrator != nil && !opt.DryRun {
		res, err := c.MigrateMain(ctx, opt)
		report.Main = &res
		if err != nil {
			report.Status, report.Reason = migrate.StatusHalted, err.Error()
			return report, err
		}
	}
	if c.cfg.Migrator == nil {
		return report, nil
	}
	tenants, err := c.MigrateTenants(ctx, opt)
	if tenants == nil && report.Main == nil {
		return nil, err // nothing was begun
	}
	if tenants == nil {
		report.Status, report.Reason = migrate.StatusStopped, err.Error()
		return report, err
	}
	tenants.Main = report.Main
	return tenants, err
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
//
// A run takes the place of one that other programs have begun with other
// migrations up to the same version, or an older one: those end with
// migrate.ErrStopped. One that finds such a run to a newer version does not
// begin.
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
	if err != nil && report != nil && len(report.Tenants) == 1 && report.Tenants[0].Error != "" {
		return fmt.Errorf("%w: %s", err, report.Tenants[0].Error)
	}
	return err
}

// HaltMigrations ends the runs that are going on, in all processes: who has its
// turn ends it, and no tenant gets one any more. Those migrations are not run
// again without migrate.Options.Retry; others are. It returns how many
// migrations it has halted: one, unless different programs are at it.
func (c *Catalog) HaltMigrations(ctx context.Context, reason string) (int, error) {
	if reason == "" {
		reason = "halted by hand"
	}
	n, err := c.store.exec(ctx, "INSERT INTO "+haltsTable+" (fingerprint, reason)"+
		" SELECT DISTINCT fingerprint, CAST(? AS text) FROM "+runsTable+" r WHERE ended_at IS NULL AND "+c.store.live("r")+
		" ON CONFLICT DO NOTHING", printableText(reason))
	if err != nil {
		return 0, c.mainError("halt", err)
	}
	return int(n), nil
}

// live says that a process is at the run r.
func (s *store) live(r string) string {
	return "EXISTS (SELECT 1 FROM " + membersTable + " m WHERE m.run = " + r + ".id AND m.until >= " + s.d.nowMS + ")"
}
