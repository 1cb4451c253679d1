package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (b builder) template() *cobra.Command {
	return &cobra.Command{
		Use: "template", Short: "make the templates that new tenants are copied from", Args: noArgs,
		Long: "Makes the template on each server where it is not there: otherwise the first\n" +
			"create after a new migration does, and takes that much longer.",
		RunE: b.do(func(r *run, _ []string) error {
			if err := r.cat.BuildTemplates(r.ctx); err != nil {
				return r.cause(err)
			}
			r.err.sayf("the templates are there")
			if r.json {
				return r.printJSON(map[string]bool{"done": true})
			}
			return nil
		}),
	}
}

// serverLoad is catalog.Load, for JSON.
type serverLoad struct {
	Server  string `json:"server"`
	Tenants int    `json:"tenants"`
	Ready   int    `json:"ready"`
}

func (b builder) ready() *cobra.Command {
	var drop string
	var keep int
	var force bool
	cmd := &cobra.Command{
		Use: "ready", Short: "fill up the databases that wait for tenants", Args: noArgs,
		Long: "Makes as many ready databases on each server as the configuration says, and lists\n" +
			"the servers. With --drop it drops those of one server.",
		RunE: b.do(func(r *run, _ []string) error {
			if keep < 0 {
				return errors.New("--keep is negative")
			}
			if drop == "" {
				if err := r.cat.FillReady(r.ctx); err != nil {
					return r.cause(err)
				}
				return r.printLoads()
			}
			loads, err := r.loads()
			if err != nil {
				return err
			}
			load, ok := loads[drop]
			if !ok {
				return fmt.Errorf("there is no server %q", drop)
			}
			n := max(0, load.Ready-keep)
			if n > 0 {
				if err := r.confirm(force, fmt.Sprintf("drop %s on %s", count(n, "ready database", "ready databases"), drop), drop); err != nil {
					return err
				}
				if err := r.cat.DropReady(r.ctx, drop, keep); err != nil {
					return r.cause(err)
				}
			}
			return r.printLoads()
		}),
	}
	cmd.Flags().StringVar(&drop, "drop", "", "drop the ready databases of this server")
	cmd.Flags().IntVar(&keep, "keep", 0, "with --drop: how many stay")
	forceFlag(cmd, &force)
	return cmd
}

func (r *run) loads() (map[string]serverLoad, error) {
	all, err := r.cat.Loads(r.ctx)
	if err != nil {
		return nil, err
	}
	m := map[string]serverLoad{}
	for _, l := range all {
		m[l.Server] = serverLoad{l.Server, l.Tenants, l.Ready}
	}
	return m, nil
}

func (r *run) printLoads() error {
	all, err := r.cat.Loads(r.ctx)
	if err != nil {
		return err
	}
	loads, rows := []serverLoad{}, [][]string{}
	for _, l := range all {
		loads = append(loads, serverLoad{l.Server, l.Tenants, l.Ready})
		rows = append(rows, []string{l.Server, fmt.Sprint(l.Tenants), fmt.Sprint(l.Ready)})
	}
	if r.json {
		return r.printJSON(loads)
	}
	return (&table{w: r.out}).print([]string{"SERVER", "TENANTS", "READY"}, rows)
}
