package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
)

func (b builder) list() *cobra.Command {
	var s selection
	var unfinished bool
	cmd := &cobra.Command{
		Use: "list [ID...]", Aliases: []string{"ls"}, Short: "list tenants",
		RunE: b.do(func(r *run, args []string) error {
			s.ids = args
			all, err := s.tenants(r)
			if err != nil {
				return err
			}
			if unfinished {
				some := []catalog.Tenant{}
				for _, t := range all {
					if t.Task != "" {
						some = append(some, t)
					}
				}
				all = some
			}
			return r.printTenants(all)
		}),
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&unfinished, "unfinished", false, "only tenants with work that is not finished")
	return cmd
}

func (r *run) printTenants(all []catalog.Tenant) error {
	if r.json {
		return r.printJSON(all)
	}
	var rows [][]string
	for _, t := range all {
		rows = append(rows, []string{nameOf(t), string(t.State), t.Server, fmt.Sprint(t.Version), labelList(t.Labels), note(t)})
	}
	return (&table{w: r.out}).print([]string{"ID", "STATE", "SERVER", "VERSION", "LABELS", "NOTE"}, rows)
}

// note is what somebody should know of a tenant.
func note(t catalog.Tenant) string {
	switch {
	case t.Task != "":
		return string(t.Task) + " is unfinished"
	case t.Attention != "":
		return "its migration failed"
	case t.State == catalog.Suspended:
		return t.Reason
	case t.State == catalog.Deleted:
		return t.Backup
	}
	return ""
}

func (b builder) show() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "show all that is known of a tenant", Args: someArgs(1, 1),
		RunE: b.do(func(r *run, args []string) error {
			t, err := r.cat.Get(r.ctx, args[0])
			if err != nil {
				return err
			}
			if r.json {
				return r.printJSON(t)
			}
			return r.printFacts(t)
		}),
	}
}

func (r *run) printFacts(t catalog.Tenant) error {
	facts := [][2]string{
		{"id", t.ID}, {"uid", t.UID}, {"state", string(t.State)}, {"reason", t.Reason}, {"server", t.Server},
		{"database", t.Database}, {"version", fmt.Sprint(t.Version)}, {"fingerprint", t.Fingerprint},
		{"labels", labelList(t.Labels)}, {"created", moment(t.CreatedAt)}, {"updated", moment(t.UpdatedAt)},
		{"unfinished", string(t.Task)}, {"at step", t.Step}, {"last error", t.LastError}, {"backup", t.Backup},
	}
	if t.MaxConns > 0 {
		facts = append(facts, [2]string{"max conns", fmt.Sprint(t.MaxConns)})
	}
	if t.Adopted {
		facts = append(facts, [2]string{"adopted", "yes"})
	}
	if m := t.Migration; m != nil {
		text := fmt.Sprintf("%s, version %d to %d", m.Status, m.From, m.To)
		if m.Error != "" {
			text += ": " + m.Error
		}
		facts = append(facts, [2]string{"migration", text})
	}
	if t.Attention != "" {
		facts = append(facts, [2]string{"attention", "mend what is wrong, then run `" + r.opts.Name + " retry " + t.ID + "`"})
	}
	for _, f := range facts {
		if f[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(r.out, "%-12s %s\n", f[0]+":", printable(f[1])); err != nil {
			return err
		}
	}
	return nil
}
