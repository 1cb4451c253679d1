package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
)

func (b builder) remove() *cobra.Command {
	var o catalog.RemoveOptions
	var force bool
	cmd := &cobra.Command{
		Use: "remove ID", Aliases: []string{"rm"}, Short: "end a tenant: back its database up, and drop it", Args: someArgs(1, 1),
		RunE: b.do(func(r *run, args []string) error {
			t, err := r.cat.Get(r.ctx, args[0])
			if err != nil {
				return err
			}
			if err := r.confirm(force, removal(t, o), t.ID); err != nil {
				return err
			}
			if t, err = r.cat.Remove(r.ctx, args[0], o); err != nil {
				return r.cause(err)
			}
			if r.json {
				return r.printJSON(t)
			}
			text := fmt.Sprintf("%s is removed", args[0])
			if t.Backup != "" {
				text += "; its backup is " + t.Backup
			}
			_, err = fmt.Fprintln(r.out, printable(text))
			return err
		}),
	}
	cmd.Flags().BoolVar(&o.KeepDatabase, "keep-database", false, "leave the database where it is, closed to the application")
	cmd.Flags().BoolVar(&o.NoBackup, "no-backup", false, "make no backup")
	cmd.Flags().BoolVar(&o.Forget, "forget", false, "end it without its server, which is gone for good")
	drainFlag(cmd, &o.Drain)
	forceFlag(cmd, &force)
	return cmd
}

// removal says what remove is about to do.
func removal(t catalog.Tenant, o catalog.RemoveOptions) string {
	what := "its database is dropped, after the backup that the configuration says"
	switch {
	case o.Forget:
		what = "its database is forgotten, without asking its server"
	case o.KeepDatabase:
		what = "its database is kept, and closed to the application"
	case o.NoBackup:
		what = "its database is dropped, without a backup"
	}
	return fmt.Sprintf("remove %s (%s on %s): %s", t.ID, t.State, t.Server, what)
}
