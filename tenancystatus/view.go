package tenancystatus

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gorm-tenancy/tenancy/internal/figures"
)

const (
	// maxServerCharts is how many servers have a chart; the table has the rest.
	maxServerCharts = 12
	// maxProblems is how many problems are listed at the top.
	maxProblems = 8
	// historyRows is how many rows the table of the history has.
	historyRows = 10
)

// view is what the template is given.
type view struct {
	Report
	Window       string // of the history
	Every        string // the interval
	EveryMs      int64
	Charts       []chart
	ServerCharts []chart
	Rows         []step
	ServerRows   []serverRow
	Problems     []string
	MoreProblems int
	Evictions    []eviction
	ListsTenants bool
	Title        string
}

type eviction struct {
	Cause, Meaning string
	N              uint64
}

var meanings = []string{
	"more pools than Limits.MaxPools", "unused for Limits.IdleTimeout", "Evict or Drain was called",
	"the database changed", "no longer found, or suspended", "the plugin was closed", "a turn of Each ended",
}

func newView(r Report, cfg Config) view {
	steps := stepsOf(r.History)
	a := axis{from: r.Time.Add(-cfg.History), to: r.Time}
	v := view{
		Report:       r,
		Window:       span(cfg.History),
		Every:        seconds(cfg.Interval.Seconds()),
		EveryMs:      cfg.Interval.Milliseconds(),
		Charts:       a.charts(steps),
		ServerCharts: a.serverCharts(r),
		Rows:         rowsOf(steps, historyRows),
		ServerRows:   serverRows(inOrder(r.Servers)),
		ListsTenants: cfg.Tenants > 0,
	}
	for i, c := range figures.Causes {
		v.Evictions = append(v.Evictions, eviction{string(c), meanings[i], r.Pools.EvictedTotal[c]})
	}
	v.Problems = problems(r)
	v.Title = r.Name + " – tenancy"
	if n := len(v.Problems); n > 0 {
		v.Title = fmt.Sprintf("(%d) %s", n, v.Title)
	}
	if n := len(v.Problems) - maxProblems; n > 0 {
		v.Problems, v.MoreProblems = v.Problems[:maxProblems], n
	}
	return v
}

// problems says in sentences what an operator should look at, the worst first.
func problems(r Report) (out []string) {
	for _, s := range r.Servers {
		if s.Down {
			out = append(out, fmt.Sprintf("%s is down since %s UTC: connects failed, and callers fail at once.",
				serverName(s.Server), clock(*s.DownSince)))
		}
	}
	for _, s := range r.Servers {
		if s.Waiting > 0 {
			out = append(out, fmt.Sprintf("%s for a connection to %s: %s of %s are taken.",
				plural(s.Waiting, "caller waits", "callers wait"), serverName(s.Server), number(s.Conns), number(s.MaxConns)))
		}
		if n := s.Recent.Exhausted; n > 0 {
			out = append(out, fmt.Sprintf("%s in vain for a connection to %s in the last %s.",
				plural(n, "caller has waited", "callers have waited"), serverName(s.Server), lately(s.Recent.Seconds)))
		}
		if n := s.Recent.Saturated; n > 0 {
			out = append(out, fmt.Sprintf("%s itself had no connection left, %s in the last %s.",
				serverName(s.Server), plural(n, "time", "times"), lately(s.Recent.Seconds)))
		}
	}
	return out
}

// lately is how long figures were counted for.
func lately(s float64) string { return span(time.Duration(s * float64(time.Second))) }

// Healthy is what is said when there is no problem.
func (v view) Healthy() string {
	if v.ServersKnown == 0 {
		return "No tenant has been awake yet."
	}
	if v.ServersKnown == 1 {
		return "The server answers, and nobody waits."
	}
	return fmt.Sprintf("All %s servers answer, and nobody waits.", number(v.ServersKnown))
}

// HitRate is how many of the statements of the last minutes found their pool open.
func (v view) HitRate() string { return percent(v.Recent.Hits, v.Recent.Statements) }

// Up is how long figures have been gathered for.
func (v view) Up() string { return span(v.Time.Sub(v.Since)) }

// Lately is the time that Recent covers.
func (v view) Lately() string { return lately(v.Recent.Seconds) }

// Approximate reports whether a server's figures are.
func (v view) Approximate() bool {
	return slices.ContainsFunc(v.Servers, func(s Server) bool { return s.Approximate })
}

// RateNow is the rate of statements in the last step.
func (v view) RateNow() string { return v.Charts[0].Lines[0].Now }

// inOrder returns servers as they are shown: those that are down, then the others,
// by name. By what presses hardest, they would change places all the time.
func inOrder(servers []Server) []Server {
	up := func(s Server) int {
		if s.Down {
			return 0
		}
		return 1
	}
	out := slices.Clone(servers)
	slices.SortFunc(out, func(a, b Server) int {
		return cmp.Or(cmp.Compare(up(a), up(b)), strings.Compare(a.Server, b.Server))
	})
	return out
}

// serverRow is a row of the table of servers.
type serverRow struct {
	Server
	Name string
	// Busy, Spare and Coming are the connections that are in use, idle and being
	// dialled, as parts of a bar of 100.
	Busy, Spare, Coming band
}

func serverRows(servers []Server) (rows []serverRow) {
	for _, s := range servers {
		whole := float64(max(1, s.MaxConns, s.Conns))
		at := 0
		part := func(n int) band {
			b := band{X: coord(100 * float64(at) / whole), Width: coord(100 * float64(n) / whole)}
			at += n
			return b
		}
		rows = append(rows, serverRow{Server: s, Name: serverName(s.Server),
			Busy: part(s.ConnsInUse), Spare: part(s.ConnsIdle), Coming: part(s.ConnsDialing)})
	}
	return rows
}
