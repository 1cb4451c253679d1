package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func (b builder) reset() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "reset", Short: "drop all tenants and make them anew, empty: for development", Args: noArgs,
		Long: "Drops all tenants without a backup, empties the main database, migrates it, and\n" +
			"makes all tenants anew. It is for development.",
		RunE: b.do(func(r *run, _ []string) error {
			if err := r.cat.Migrate(r.ctx); err != nil {
				return err
			}
			all, err := r.listed(catalog.Filter{})
			if err != nil {
				return err
			}
			if err := r.confirm(force, fmt.Sprintf("reset: the main database and %s lose all that they have", tenants(len(idsOf(all)))), "reset"); err != nil {
				return err
			}
			return r.cause(r.reset(all))
		}),
	}
	forceFlag(cmd, &force)
	return cmd
}

// reset makes everything anew, main first.
func (r *run) reset(all []catalog.Tenant) error {
	for _, t := range all {
		if t.ID == "" {
			continue
		}
		if _, err := r.cat.Remove(r.ctx, t.ID, catalog.RemoveOptions{NoBackup: true, Drain: -1}); err != nil {
			return err
		}
	}
	loads, err := r.loads()
	if err != nil {
		return err
	}
	for name := range loads {
		if err := r.cat.DropReady(r.ctx, name, 0); err != nil {
			return err
		}
	}
	if err := r.opts.Reset(r.ctx, r.app); err != nil {
		return fmt.Errorf("emptying the main database: %w", err)
	}
	if _, err := r.cat.MigrateAll(r.ctx, migrate.Options{}); err != nil {
		return err
	}
	made := []catalog.Tenant{}
	for _, t := range all {
		if t.ID == "" {
			continue
		}
		n, err := r.cat.Create(r.ctx, t.ID, catalog.CreateOptions{Server: t.Server, Labels: t.Labels, MaxConns: t.MaxConns})
		if err != nil {
			return err
		}
		made = append(made, n)
	}
	if r.json {
		return r.printJSON(made)
	}
	_, err = fmt.Fprintf(r.out, "the main database and %s are as new\n", tenants(len(made)))
	return err
}
