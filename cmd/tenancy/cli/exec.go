package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

// execution is what exec was told.
type execution struct {
	selection
	query                        string
	write, force, forget         bool
	checkpoint                   string
	parallel, perServer, maxRows int
	timeout                      time.Duration
}

func (b builder) exec() *cobra.Command {
	var e execution
	cmd := &cobra.Command{
		Use: "exec SQL [ID...]", Short: "run one SQL statement in tenants' databases", Args: someArgs(1, -1),
		Long: "Runs one SQL statement in the databases of all active tenants, or of those that are\n" +
			"selected, with the application's rights. It can only read, unless --write is said.\n" +
			"One that fails does not keep the others from their turn; exit code 2 says so.",
		Example: "  " + b.opts.Name + " exec 'SELECT count(*) FROM orders' --label plan=gold",
		RunE: b.do(func(r *run, args []string) error {
			e.query, e.ids = args[0], args[1:]
			return r.exec(&e)
		}),
	}
	e.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&e.write, "write", false, "the statement may write")
	f.IntVar(&e.parallel, "workers", 1, "how many tenants at a time")
	f.IntVar(&e.perServer, "per-server", 0, "how many of these on one server (default a quarter of its connections)")
	f.IntVar(&e.maxRows, "max-rows", 1000, "print so many rows of each tenant; 0: all")
	f.DurationVar(&e.timeout, "timeout", time.Minute, "how long one tenant's turn may take; 0: no bound. On SQLite it ends a query between rows")
	f.StringVar(&e.checkpoint, "checkpoint", "", "a name under which it is noted who had their turn: run again, the others get theirs")
	f.BoolVar(&e.forget, "forget-checkpoint", false, "begin anew under the name")
	forceFlag(cmd, &e.force)
	return cmd
}

func (r *run) exec(e *execution) error {
	statement, err := r.statement(e)
	if err != nil {
		return err
	}
	usual := []catalog.State{catalog.Active}
	chosen, err := e.tenants(r, usual...)
	if err != nil {
		return err
	}
	ids := idsOf(chosen)
	if e.write {
		if err := r.confirm(e.force, fmt.Sprintf("exec --write: the statement runs in %s", tenants(len(ids))), fmt.Sprint(len(ids))); err != nil {
			return err
		}
	}
	opt := tenancy.EachOptions{Parallel: e.parallel, PerServer: e.perServer}
	if e.checkpoint != "" {
		p := r.cat.Checkpoint(e.checkpoint)
		if e.forget {
			if err := p.Forget(r.ctx); err != nil {
				return err
			}
		}
		opt.Checkpoint = p
	}
	p := &printer{r: r, maxRows: e.maxRows, table: table{w: r.out}}
	err = tenancy.Each(r.ctx, r.app.DB, sequence(ids), opt, func(ctx context.Context, id string, db *gorm.DB) error {
		if e.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, e.timeout, fmt.Errorf("it took longer than --timeout %s", e.timeout))
			defer cancel()
		}
		res, err := statement(ctx, db)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return err
		}
		return p.print(id, res)
	})
	return r.sayFailed(e, len(ids), err)
}

// statement returns what runs the statement in one tenant's database.
func (r *run) statement(e *execution) (func(context.Context, *gorm.DB) (*result, error), error) {
	if strings.TrimSpace(e.query) == "" {
		return nil, errors.New("the statement is empty")
	}
	if r.app.DB.Name() == "sqlite" {
		return sqliteStatement(e.query, e.write, e.maxRows)
	}
	return postgresStatement(e.query, e.write, e.maxRows), nil
}

func sequence(ids []string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, id := range ids {
			if !yield(id, nil) {
				return
			}
		}
	}
}

// sayFailed lists the tenants that failed.
func (r *run) sayFailed(e *execution, n int, err error) error {
	if err == nil {
		return nil
	}
	var each *tenancy.EachError
	if !errors.As(err, &each) {
		return err
	}
	slices.SortFunc(each.Failed, func(a, b tenancy.TenantError) int { return strings.Compare(a.Tenant, b.Tenant) })
	for _, f := range each.Failed {
		r.err.sayf("failed: %s: %s", printable(f.Tenant), oneLine(r.opts.Name, f.Err))
	}
	left := n - len(each.Done) - len(each.Failed) - each.Skipped
	text := fmt.Sprintf("%d done, %d failed", len(each.Done), len(each.Failed))
	if left > 0 {
		text += fmt.Sprintf(", %d had no turn", left)
	}
	if each.Cause != nil {
		text += ": " + oneLine(r.opts.Name, r.cause(each.Cause))
	}
	if e.checkpoint != "" {
		text += "; run it again with the same --checkpoint for the others"
	}
	r.err.sayf("%s", text)
	return exitCode(exitPartial)
}
