package cli

import (
	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// birth is what a new tenant is given.
func birth(cmd *cobra.Command, o *catalog.CreateOptions) {
	cmd.Flags().StringVar(&o.Server, "server", "", "the server that its database is on")
	cmd.Flags().StringToStringVar(&o.Labels, "label", nil, "a label: key=value")
	cmd.Flags().IntVar(&o.MaxConns, "max-conns", 0, "its own limit of connections in each process")
}

func (b builder) create() *cobra.Command {
	var o catalog.CreateOptions
	cmd := &cobra.Command{
		Use: "create ID", Short: "make a tenant, with a database of its own", Args: someArgs(1, 1),
		Example: "  " + b.opts.Name + " create acme --label plan=gold",
		RunE: b.do(func(r *run, args []string) error {
			t, err := r.cat.Create(r.ctx, args[0], o)
			if err != nil {
				return r.cause(err)
			}
			return r.printTenant(t)
		}),
	}
	birth(cmd, &o)
	return cmd
}

func (b builder) adopt() *cobra.Command {
	var o catalog.AdoptOptions
	cmd := &cobra.Command{
		Use: "adopt ID DATABASE", Short: "make a tenant of a database that exists", Args: someArgs(2, 2),
		Long: "Makes a tenant of a database that exists, under the name that it has. From then\n" +
			"on it is as any other: remove drops it.",
		RunE: b.do(func(r *run, args []string) error {
			o.Database = args[1]
			if o.Server == "" {
				loads, err := r.cat.Loads(r.ctx)
				if err != nil {
					return err
				}
				if len(loads) == 1 {
					o.Server = loads[0].Server
				}
			}
			t, err := r.cat.Adopt(r.ctx, args[0], o)
			if err != nil {
				return r.cause(err)
			}
			return r.printTenant(t)
		}),
	}
	birth(cmd, &o.CreateOptions)
	cmd.Flags().BoolVar(&o.Migrate, "migrate", false, "bring its schema forward")
	cmd.Flags().BoolVar(&o.Force, flagForce, false, "also one that says that it is another catalog's")
	return cmd
}
