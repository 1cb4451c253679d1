package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
)

func (b builder) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "say how far the tenants' schemas are", Args: noArgs,
		Long: "Says how far the tenants' schemas are, by what the catalog knows. Exit code 2: some\n" +
			"are behind, or work is unfinished. 3: these migrations are halted.",
		RunE: b.do(func(r *run, _ []string) error {
			st, err := r.cat.Status(r.ctx)
			if err != nil {
				return r.cause(err)
			}
			if r.json {
				err = r.printJSON(st)
			} else {
				err = r.printStatus(st)
			}
			if code := statusCode(st); err == nil && code != exitDone {
				return exitCode(code)
			}
			return err
		}),
	}
}

func statusCode(st catalog.Status) int {
	switch {
	case st.Halted != "" && st.Behind > 0:
		return exitHalted
	case st.Behind+st.Attention+st.Unfinished > 0:
		return exitPartial
	}
	return exitDone
}

func (r *run) printStatus(st catalog.Status) error {
	var rows [][]string
	for _, v := range st.Versions {
		rows = append(rows, []string{v.Server, string(v.State), fmt.Sprint(v.Version), fmt.Sprint(v.Tenants)})
	}
	if err := (&table{w: r.out}).print([]string{"SERVER", "STATE", "VERSION", "TENANTS"}, rows); err != nil {
		return err
	}
	text := fmt.Sprintf("\ntarget: version %d; %d behind, %d of them need attention; %d unfinished\n",
		st.Target, st.Behind, st.Attention, st.Unfinished)
	if st.Fingerprint == "" {
		text = fmt.Sprintf("\nno migrations are configured; %d unfinished\n", st.Unfinished)
	}
	if _, err := fmt.Fprint(r.out, text); err != nil {
		return err
	}
	if len(st.Runs) > 0 {
		rows = nil
		for _, run := range st.Runs {
			rows = append(rows, []string{fmt.Sprint(run.ID), fmt.Sprint(run.Target), moment(run.Began), endOf(run)})
		}
		fmt.Fprintln(r.out)
		if err := (&table{w: r.out}).print([]string{"RUN", "TARGET", "BEGAN", "ENDED"}, rows); err != nil {
			return err
		}
	}
	switch {
	case statusCode(st) == exitHalted:
		r.err.sayf("these migrations are halted: %s; go on by `%s retry`", printable(st.Halted), r.opts.Name)
	case st.Attention > 0:
		r.err.sayf("mend what is wrong (see `%s list`), then `%[1]s retry`", r.opts.Name)
	case st.Behind > 0:
		r.err.sayf("run `%s migrate`", r.opts.Name)
	}
	if st.Unfinished > 0 {
		r.err.sayf("run `%s resume` to finish what is unfinished", r.opts.Name)
	}
	return nil
}

func endOf(run catalog.Run) string {
	switch {
	case run.Ended != nil && run.Note != "":
		return moment(*run.Ended) + ", " + run.Note
	case run.Ended != nil:
		return moment(*run.Ended)
	case run.Processes > 0:
		return count(run.Processes, "process is", "processes are") + " at it"
	}
	return "it was interrupted"
}
