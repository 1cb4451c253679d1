package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// selection is the tenants that a command is about.
type selection struct {
	states []string
	server string
	labels map[string]string
	ids    []string // arguments
}

func (s *selection) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&s.states, "state", nil, "only tenants in these states")
	cmd.Flags().StringVar(&s.server, "server", "", "only tenants on this server")
	cmd.Flags().StringToStringVar(&s.labels, "label", nil, "only tenants with this label: key=value")
}

// all reports whether nothing was selected.
func (s *selection) all() bool {
	return len(s.states) == 0 && s.server == "" && len(s.labels) == 0 && len(s.ids) == 0
}

var states = []catalog.State{catalog.Provisioning, catalog.Ready, catalog.Active, catalog.Suspended, catalog.Moving,
	catalog.Deleting, catalog.Deleted}

func (s *selection) filter() (catalog.Filter, error) {
	f := catalog.Filter{Server: s.server, Labels: s.labels}
	for _, name := range s.states {
		if !slices.Contains(states, catalog.State(name)) {
			return f, fmt.Errorf("there is no state %q; the states are %s", name, strings.Trim(fmt.Sprint(states), "[]"))
		}
		f.States = append(f.States, catalog.State(name))
	}
	return f, nil
}

// tenants returns those that are selected, in the order of their ids. Where no
// state is named, they are those in usual; ids that are named are taken in any
// state but deleted. To select nobody is an error: so often it is a typing
// error, and a migration of nobody would be one of all.
func (s *selection) tenants(r *run, usual ...catalog.State) ([]catalog.Tenant, error) {
	f, err := s.filter()
	if err != nil {
		return nil, err
	}
	var found []catalog.Tenant
	if len(s.ids) > 0 {
		found, err = s.named(r, f)
	} else {
		if len(f.States) == 0 {
			f.States = usual
		}
		found, err = r.listed(f)
	}
	if err != nil {
		return nil, err
	}
	if len(found) == 0 && !s.all() {
		return nil, errors.New("no tenant is selected; see the list of all by `" + r.opts.Name + " list`")
	}
	return found, nil
}

func (s *selection) named(r *run, f catalog.Filter) (found []catalog.Tenant, err error) {
	ids := slices.Clone(s.ids)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		t, err := r.cat.Get(r.ctx, id)
		if err != nil {
			return nil, err
		}
		if picks(f, t) {
			found = append(found, t)
		}
	}
	return found, nil
}

// picks says of one tenant what the catalog says by SQL.
func picks(f catalog.Filter, t catalog.Tenant) bool {
	for k, v := range f.Labels {
		if has, ok := t.Labels[k]; !ok || has != v {
			return false
		}
	}
	return (len(f.States) == 0 || slices.Contains(f.States, t.State)) && (f.Server == "" || f.Server == t.Server)
}

// listed is catalog.List in the order of ids.
func (r *run) listed(f catalog.Filter) ([]catalog.Tenant, error) {
	found := []catalog.Tenant{}
	for t, err := range r.cat.List(r.ctx, f) {
		if err != nil {
			return nil, err
		}
		found = append(found, t)
	}
	slices.SortFunc(found, func(a, b catalog.Tenant) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Database, b.Database))
	})
	return found, nil
}

// idsOf leaves out the ready databases, which have none.
func idsOf(all []catalog.Tenant) (ids []string) {
	for _, t := range all {
		if t.ID != "" {
			ids = append(ids, t.ID)
		}
	}
	return ids
}
