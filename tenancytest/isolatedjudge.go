package tenancytest

import (
	"fmt"
	"slices"
	"strings"
)

// judge notes the leaks of calls. If there was one alone since the databases
// were last looked at, all that came since then is its.
func (i *isolated) judge(entries []entry, alone *run, runs ...*run) error {
	before := [...]*snapshot{i.sides[0].now, i.sides[1].now}
	if err := i.look(i.sides[:]...); err != nil {
		return err
	}
	for at, s := range i.sides {
		other := i.other(s)
		for _, r := range runs {
			if r.tenant == s.id {
				i.searchOutput(r, other)
			}
		}
		i.searchDatabase(s, other)
		if alone != nil && alone.tenant != s.id {
			for _, change := range s.now.changes(before[at]) {
				i.leak("%s as %s: the database of %s %s", alone.as, alone.tenant, s.id, change)
			}
		}
	}
	i.searchEntries(entries, alone)
	return nil
}

func (i *isolated) searchEntries(entries []entry, alone *run) {
	for _, e := range entries {
		switch {
		case e.run != nil && e.run.tenant != e.tenant:
			i.leak("%s as %s: a statement went to the database of %s: %s", e.run.as, e.run.tenant, e.tenant, e.query)
		case alone != nil && e.tenant != alone.tenant:
			i.leak("%s as %s: a statement, with a ctx that is not its own, went to the database of %s: %s", alone.as, alone.tenant, e.tenant, e.query)
		}
	}
}

func (i *isolated) searchOutput(r *run, other *side) {
	said := r.said()
	for _, c := range other.secrets {
		if c.in(said) {
			i.leak("%s as %s: its output holds %q, which only the database of %s has, in %s", r.as, r.tenant, c.text, other.id, c.at)
		}
	}
}

func (i *isolated) searchDatabase(s, other *side) {
	for _, c := range other.secrets {
		for text, column := range s.now.texts {
			if strings.Contains(text, c.text) {
				i.leak("the database of %s has got %q in %s, which only the database of %s had, in %s", s.id, text, column, other.id, c.at)
			}
		}
	}
}

func (i *isolated) leak(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(i.leaks, text) {
		i.leaks = append(i.leaks, text)
	}
}

func (i *isolated) report() string { return listed(i.leaks) }
