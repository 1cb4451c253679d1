package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// migration is what migrate and retry were told.
type migration struct {
	selection
	mainOnly, tenantsOnly bool
	opt                   migrate.Options
}

func (m *migration) flags(cmd *cobra.Command) {
	m.selection.flags(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&m.opt.Canaries, "canary", nil, "ids of tenants that come first; if one fails, the run halts")
	f.IntVar(&m.opt.Workers, "workers", 0, "how many tenants at a time (default 32)")
	f.IntVar(&m.opt.PerServer, "per-server", 0, "how many of these on one server (default 8)")
	f.DurationVar(&m.opt.LockTimeout, "lock-timeout", 0, "how long a statement waits for a lock of the application (default 5s)")
	f.DurationVar(&m.opt.StatementTimeout, "statement-timeout", 0, "how long a statement may take; negative: no bound (default 15m)")
	f.DurationVar(&m.opt.Patience, "patience", 0, "how long a server that is down is waited for; negative: not at all (default 1m)")
	f.IntVar(&m.opt.Breaker, "breaker", 0, "halt when so many tenants failed in the same way; negative: never (default 3)")
	f.IntVar(&m.opt.Attempts, "attempts", 0, "tries where the failure may go away by itself (default 5)")
}

func (b builder) migrate() *cobra.Command {
	var m migration
	cmd := &cobra.Command{
		Use: "migrate [ID...]", Short: "bring the main database to the newest migration, and then all tenants",
		Long: "Brings the main database to the newest migration, and then all tenants, or those\n" +
			"that are selected. Any number of processes may do so at once. Ctrl-C ends it in\n" +
			"good order, a second Ctrl-C at once; run it again to go on.",
		RunE: b.do(func(r *run, args []string) error {
			m.ids = args
			return r.migrate(&m)
		}),
	}
	m.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&m.mainOnly, "main-only", false, "only the main database")
	f.BoolVar(&m.tenantsOnly, "tenants-only", false, "only the tenants")
	f.BoolVar(&m.opt.DryRun, "dry-run", false, "change nothing; list what there is to do")
	f.BoolVar(&m.opt.Retry, "retry", false, "also tenants where these migrations failed, and a run that was halted")
	cmd.MarkFlagsMutuallyExclusive("main-only", "tenants-only")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "retry")
	return cmd
}

func (b builder) retry() *cobra.Command {
	m := migration{tenantsOnly: true}
	cmd := &cobra.Command{
		Use: "retry [ID...]", Short: "migrate again where it failed, or was halted",
		Long: "Migrates the tenants again in which these migrations failed, or those that are\n" +
			"selected, and goes on with a run that was halted.",
		RunE: b.do(func(r *run, args []string) error {
			m.ids, m.opt.Retry = args, true
			return r.migrate(&m)
		}),
	}
	m.flags(cmd)
	return cmd
}

func (b builder) halt() *cobra.Command {
	return &cobra.Command{
		Use: "halt [REASON...]", Short: "end the migration runs of all processes",
		Long: "Ends the migration runs that are going on, in all processes: tenants that are in\n" +
			"work are finished, and no other gets its turn. Go on by retry.",
		RunE: b.do(func(r *run, args []string) error {
			n, err := r.cat.HaltMigrations(r.ctx, strings.Join(args, " "))
			if err != nil {
				return r.cause(err)
			}
			if r.json {
				return r.printJSON(map[string]int{"halted": n})
			}
			if n == 0 {
				_, err = fmt.Fprintln(r.out, "no migration run is going on that is not halted already")
				return err
			}
			_, err = fmt.Fprintf(r.out, "%s halted; go on by `%s retry`\n", count(n, "run is", "runs are"), r.opts.Name)
			return err
		}),
	}
}

// migrate runs m, prints the report, and says how to go on.
func (r *run) migrate(m *migration) error {
	// A canary that is not there would be left out without a word, and its
	// migration be tried on everybody at once.
	for _, id := range m.opt.Canaries {
		if _, err := r.cat.Get(r.ctx, id); err != nil && !errors.Is(err, catalog.ErrNotMigrated) {
			return fmt.Errorf("canary: %w", err)
		}
	}
	if !m.all() {
		if m.mainOnly {
			return errors.New("--main-only selects no tenants; leave one of them out")
		}
		chosen, err := m.tenants(r, catalog.Active, catalog.Suspended)
		if err != nil {
			return err
		}
		if m.opt.Only = idsOf(chosen); len(m.opt.Only) == 0 {
			return errors.New("ready databases have no ids to select them by; migrate all")
		}
	}
	p := newProgress(r.err)
	stop := make(chan struct{})
	m.opt.Stop, m.opt.OnEvent = stop, p.event
	defer onInterrupt(r.ctx, func() {
		close(stop)
		r.err.sayf("stopping: what is in work is finished first; once more to cancel that")
	})()
	report, err := r.bring(m)
	p.end()
	if report == nil {
		return r.cause(err)
	}
	if notBegun(report, err) && r.ctx.Err() == nil {
		return err
	}
	if err := r.printReport(m, report); err != nil {
		return err
	}
	r.sayNext(m, report, err)
	if code := report.ExitCode(); code != exitDone {
		return exitCode(code)
	}
	return r.cause(err)
}

// notBegun reports whether the tenants' run could not begin: what was asked for
// is impossible, or the catalog can't be reached. Nobody has stopped it then,
// whatever the report says.
func notBegun(report *migrate.Report, err error) bool {
	return report.Run == "" && report.Status == migrate.StatusStopped && !errors.Is(err, migrate.ErrStopped)
}

// bring migrates what m says.
func (r *run) bring(m *migration) (*migrate.Report, error) {
	if !m.mainOnly && !m.tenantsOnly {
		return r.cat.MigrateAll(r.ctx, m.opt)
	}
	if err := r.cat.Migrate(r.ctx); err != nil {
		return nil, err
	}
	if m.tenantsOnly {
		return r.cat.MigrateTenants(r.ctx, m.opt)
	}
	if m.opt.DryRun {
		return nil, errors.New("--dry-run lists tenants; leave --main-only out")
	}
	res, err := r.cat.MigrateMain(r.ctx, m.opt)
	switch {
	case err == nil:
		return &migrate.Report{Status: migrate.StatusDone, Main: &res, Target: res.To, Tenants: []migrate.Result{}}, nil
	case res.Status == "":
		return nil, err
	}
	return &migrate.Report{Status: migrate.StatusHalted, Reason: err.Error(), Main: &res, Tenants: []migrate.Result{}}, err
}

func (r *run) printReport(m *migration, report *migrate.Report) error {
	if report.Tenants == nil {
		report.Tenants = []migrate.Result{}
	}
	if r.json {
		return r.printJSON(report)
	}
	if m.mainOnly && report.Main != nil && report.Status == migrate.StatusDone {
		_, err := fmt.Fprintf(r.out, "main: version %d to %d, %s applied\n", report.Main.From, report.Main.To,
			count(len(report.Main.Applied), "migration", "migrations"))
		return err
	}
	if _, err := report.WriteTo(cells{r.out}); err != nil {
		return err
	}
	if !m.opt.DryRun {
		return nil
	}
	for _, t := range report.Tenants {
		if t.Status == migrate.StatusPending {
			if _, err := fmt.Fprintf(r.out, "pending %s on %s: version %d\n", printable(t.Tenant), printable(t.Server), t.From); err != nil {
				return err
			}
		}
	}
	return nil
}

// sayNext says how to go on.
func (r *run) sayNext(m *migration, report *migrate.Report, err error) {
	name := r.opts.Name
	switch {
	case report.Status == migrate.StatusDone, m.opt.DryRun:
	case report.Main != nil && report.Main.Status == migrate.StatusFailed:
		r.err.sayf("the main database failed, so no tenant was tried; mend it and run it again: %s migrate", name)
	case report.Status == migrate.StatusHalted:
		r.err.sayf("halted; ship migrations that are mended, or go on with these: %s retry", name)
	case report.Status == migrate.StatusStopped:
		r.err.sayf("stopped; run it again to go on")
	case report.Failed+report.Skipped > 0:
		r.err.sayf("mend what is wrong, and try those again: %s retry", name)
	case err != nil:
		r.err.sayf("%s; run it again to go on", oneLine(name, err))
	}
}
