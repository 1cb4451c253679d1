package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
)

func drainFlag(cmd *cobra.Command, d *time.Duration) {
	cmd.Flags().DurationVar(d, "drain", 0, "how long work in flight may go on; negative: not at all (default the configuration's)")
}

func (b builder) suspend() *cobra.Command {
	var o catalog.SuspendOptions
	cmd := &cobra.Command{
		Use: "suspend ID", Short: "take a tenant out of service", Args: someArgs(1, 1),
		RunE: b.do(func(r *run, args []string) error {
			if err := r.cat.Suspend(r.ctx, args[0], o); err != nil {
				return r.cause(err)
			}
			return r.printNow(args[0])
		}),
	}
	cmd.Flags().StringVar(&o.Reason, "reason", "", "is in the error that its users get")
	drainFlag(cmd, &o.Drain)
	return cmd
}

func (b builder) resume() *cobra.Command {
	return &cobra.Command{
		Use: "resume [ID]", Short: "put a tenant back into service; without ID, finish what is unfinished", Args: someArgs(0, 1),
		Long: "Puts a suspended tenant back into service. Without an id it finishes whatever\n" +
			"was begun and not finished, by a process that died or an operation that failed.",
		RunE: b.do(func(r *run, args []string) error {
			if len(args) == 0 {
				return r.resumeAll()
			}
			if err := r.cat.Unsuspend(r.ctx, args[0]); err != nil {
				return r.cause(err)
			}
			return r.printNow(args[0])
		}),
	}
}

// resumed is catalog.Resumed, for JSON.
type resumed struct {
	Finished []catalog.Tenant `json:"finished"`
	Failed   []unresumed      `json:"failed"`
	Busy     []catalog.Tenant `json:"busy"`
}

type unresumed struct {
	Tenant catalog.Tenant `json:"tenant"`
	Error  string         `json:"error"`
}

func (r *run) resumeAll() error {
	did, err := r.cat.Resume(r.ctx)
	if err != nil {
		return r.cause(err)
	}
	out := resumed{Finished: append([]catalog.Tenant{}, did.Finished...), Failed: []unresumed{}, Busy: append([]catalog.Tenant{}, did.Busy...)}
	for _, f := range did.Failed {
		out.Failed = append(out.Failed, unresumed{f.Tenant, oneLine(r.opts.Name, f.Err)})
	}
	if r.json {
		err = r.printJSON(out)
	} else {
		err = r.printResumed(out)
	}
	if err == nil && len(out.Failed) > 0 {
		return exitCode(exitPartial)
	}
	return err
}

func (r *run) printResumed(did resumed) error {
	for _, t := range did.Finished {
		fmt.Fprintln(r.out, "finished:", sentence(t))
	}
	for _, t := range did.Busy {
		fmt.Fprintf(r.out, "busy: another process is at the %s of %s\n", t.Task, nameOf(t))
	}
	for _, f := range did.Failed {
		fmt.Fprintf(r.out, "failed: %s of %s: %s\n", f.Tenant.Task, nameOf(f.Tenant), f.Error)
	}
	_, err := fmt.Fprintf(r.out, "%d finished, %d failed, %d busy\n", len(did.Finished), len(did.Failed), len(did.Busy))
	return err
}

func (b builder) rename() *cobra.Command {
	return &cobra.Command{
		Use: "rename ID NEW-ID", Short: "give a tenant another id", Args: someArgs(2, 2),
		RunE: b.do(func(r *run, args []string) error {
			if err := r.cat.Rename(r.ctx, args[0], args[1]); err != nil {
				return r.cause(err)
			}
			return r.printNow(args[1])
		}),
	}
}

func (b builder) move() *cobra.Command {
	return &cobra.Command{
		Use: "move ID SERVER", Short: "take a tenant to another server", Args: someArgs(2, 2),
		Long: "Takes a tenant to another server, by a dump that is restored there. It is out of\n" +
			"service meanwhile. A move that failed is gone on with by the same command, and\n" +
			"called off by a move to the server that the tenant is on.",
		RunE: b.do(func(r *run, args []string) error {
			if err := r.cat.Move(r.ctx, args[0], args[1]); err != nil {
				return r.cause(err)
			}
			return r.printNow(args[0])
		}),
	}
}

// printNow prints a tenant as it is now.
func (r *run) printNow(id string) error {
	t, err := r.cat.Get(r.ctx, id)
	if err != nil {
		return err
	}
	return r.printTenant(t)
}
