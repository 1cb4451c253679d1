package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// verified is a migrate.Verification with what --fix has done.
type verified struct {
	*migrate.Verification
	Corrected []string `json:"corrected,omitempty"`
}

func (b builder) verify() *cobra.Command {
	var s selection
	var opt migrate.VerifyOptions
	var fix bool
	cmd := &cobra.Command{
		Use: "verify", Short: "look into the tenants' databases for drift", Args: noArgs,
		Long: "Looks into the tenants' databases: their versions, their schemas, which must be\n" +
			"that of most others, and indexes that can't be used. It changes nothing. With --fix\n" +
			"it writes the versions that it has found into the catalog. Exit code 2: there is\n" +
			"drift.",
		RunE: b.do(func(r *run, _ []string) error {
			f, err := s.filter()
			if err != nil {
				return err
			}
			v, err := r.cat.Verify(r.ctx, f, opt)
			if err != nil {
				return r.cause(err)
			}
			out := verified{Verification: v}
			if fix {
				corrected, err := r.cat.Correct(r.ctx, v)
				out.Corrected = idsOf(corrected)
				if err != nil {
					return r.cause(err)
				}
			}
			if r.json {
				err = r.printJSON(out)
			} else {
				err = r.printDrift(out)
			}
			if err == nil && len(v.Drifts) > 0 {
				return exitCode(exitPartial)
			}
			return err
		}),
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&fix, "fix", false, "write the versions that were found into the catalog")
	cmd.Flags().IntVar(&opt.Workers, "workers", 0, "how many databases at a time (default 32)")
	cmd.Flags().IntVar(&opt.PerServer, "per-server", 0, "how many of these on one server (default 8)")
	cmd.Flags().DurationVar(&opt.Timeout, "timeout", 0, "how long the look at one may take (default 30s)")
	return cmd
}

func (r *run) printDrift(v verified) error {
	if len(v.Drifts) > 0 {
		var rows [][]string
		for _, d := range v.Drifts {
			rows = append(rows, []string{d.Tenant, d.Server, string(d.Kind), d.Detail})
		}
		if err := (&table{w: r.out}).print([]string{"TENANT", "SERVER", "DRIFT", "DETAIL"}, rows); err != nil {
			return err
		}
		fmt.Fprintln(r.out)
	}
	_, err := fmt.Fprintf(r.out, "%s looked into, target version %d: %s\n", count(v.Checked, "database", "databases"), v.Target,
		count(len(v.Drifts), "drift", "drifts"))
	if len(v.Corrected) > 0 {
		r.err.sayf("corrected in the catalog: %s; run `%s migrate` to bring those forward that are behind", tenants(len(v.Corrected)), r.opts.Name)
	}
	return err
}
