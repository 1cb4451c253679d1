package tenancystatus

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The size of a chart in its own units. It is stretched to the room that it has.
const (
	chartWidth  = 600
	chartHeight = 100
)

// chart is a figure over the time of the history.
type chart struct {
	ID    string // unique on the page
	Title string
	Desc  string // what it shows, in words
	Top   string // the value at the upper edge
	From  string // the time at the left edge
	To    string // and at the right one
	Lines []line
	Down  []band // times at which a server was down
}

// line is one curve. The first one is drawn with its area.
type line struct {
	Name string
	Now  string // its last value
	Path string
	Area string
	Kind string // first, second or limit: how it is drawn
}

type band struct{ X, Width string }

// point is a value at a moment. gap says that the line is broken before it.
type point struct {
	at  time.Time
	v   float64
	gap bool
}

type series struct {
	name, kind string
	points     []point
}

// axis is what the charts of a page share: their time.
type axis struct {
	from, to time.Time
}

func (a axis) x(t time.Time) float64 {
	return chartWidth * max(0, min(1, t.Sub(a.from).Seconds()/a.to.Sub(a.from).Seconds()))
}

// draw makes a chart of several series in one unit, which show writes.
func (a axis) draw(id, title string, show func(float64) string, all ...series) chart {
	most := 0.0
	for _, s := range all {
		for _, p := range s.points {
			most = max(most, p.v)
		}
	}
	top := roundUp(most)
	c := chart{ID: id, Title: title, Top: show(top), From: clock(a.from), To: clock(a.to)}
	var words []string
	for _, s := range all {
		l := line{Name: s.name, Kind: s.kind, Now: none}
		l.Path, l.Area = a.path(s.points, top)
		if s.kind != "first" {
			l.Area = ""
		}
		if n := len(s.points); n > 0 {
			l.Now = show(s.points[n-1].v)
		}
		c.Lines = append(c.Lines, l)
		words = append(words, s.words(show))
	}
	c.Desc = fmt.Sprintf("From %s to %s UTC. %s", clock(a.from), clock(a.to), strings.Join(words, " "))
	return c
}

// words says of a series what a curve shows at a glance.
func (s series) words(show func(float64) string) string {
	if len(s.points) == 0 {
		return fmt.Sprintf("%s: nothing yet.", s.name)
	}
	least, most, sum := math.Inf(1), 0.0, 0.0
	for _, p := range s.points {
		least, most, sum = min(least, p.v), max(most, p.v), sum+p.v
	}
	return fmt.Sprintf("%s: now %s, at least %s, at most %s, on average %s.", s.name,
		show(s.points[len(s.points)-1].v), show(least), show(most), show(sum/float64(len(s.points))))
}

// path returns a curve, and the area below it.
func (a axis) path(points []point, top float64) (curve, area string) {
	var line, below strings.Builder
	start, last := 0.0, 0.0
	end := func() {
		if below.Len() > 0 {
			fmt.Fprintf(&below, "L%s %d L%s %dZ", coord(last), chartHeight, coord(start), chartHeight)
		}
	}
	for i, p := range points {
		x, y := a.x(p.at), chartHeight*(1-p.v/top)
		verb := "L"
		if i == 0 || p.gap {
			end()
			verb, start = "M", x
		}
		fmt.Fprintf(&line, "%s%s %s", verb, coord(x), coord(y))
		fmt.Fprintf(&below, "%s%s %s", verb, coord(x), coord(y))
		last = x
	}
	end()
	return line.String(), below.String()
}

func coord(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// roundUp returns the least round number that is not below v, for the upper edge
// of a chart: 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, ... Nothing at all is drawn as of 1.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow10(int(math.Floor(math.Log10(v))))
	for _, n := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8} {
		if n*unit >= v {
			return n * unit
		}
	}
	return 10 * unit
}

// ofSteps makes a series of a figure of each step.
func ofSteps(name, kind string, steps []step, f func(step) float64) series {
	s := series{name: name, kind: kind}
	for _, st := range steps {
		s.points = append(s.points, point{at: st.At, v: f(st)})
	}
	return s
}

// ofServer makes a series of a figure of one server in each sample.
func ofServer(name, kind, server string, samples []Sample, f func(*ServerSample) int) series {
	s := series{name: name, kind: kind}
	gap := false
	for i := range samples {
		row := samples[i].server(server)
		if row == nil {
			gap = true
			continue
		}
		s.points = append(s.points, point{at: samples[i].Time, v: float64(f(row)), gap: gap})
		gap = false
	}
	return s
}

// downs are the times at which server was down.
func (a axis) downs(server string, samples []Sample) (bands []band) {
	from := -1.0
	end := func(x float64) {
		if from >= 0 {
			bands = append(bands, band{coord(from), coord(max(1, x-from))})
			from = -1
		}
	}
	for i := range samples {
		row := samples[i].server(server)
		x := a.x(samples[i].Time)
		switch {
		case row == nil || !row.Down:
			end(x)
		case from < 0:
			from = x
		}
	}
	end(chartWidth)
	return bands
}

// serverCharts are the connections of the servers that come first, against their
// budgets.
func (a axis) serverCharts(r Report) (charts []chart) {
	count := func(v float64) string { return decimal(v) }
	for i, s := range inOrder(r.Servers[:min(maxServerCharts, len(r.Servers))]) {
		c := a.draw(fmt.Sprint("server-", i), serverName(s.Server), count,
			ofServer("Connections", "first", s.Server, r.History, func(s *ServerSample) int { return s.Conns }),
			ofServer("Callers waiting", "second", s.Server, r.History, func(s *ServerSample) int { return s.Waiting }),
			ofServer("Budget", "limit", s.Server, r.History, func(s *ServerSample) int { return s.MaxConns }))
		c.Down = a.downs(s.Server, r.History)
		if len(c.Down) > 0 {
			c.Desc += " It was down for a part of that."
		}
		charts = append(charts, c)
	}
	return charts
}

// charts are those of all servers together.
func (a axis) charts(steps []step) []chart {
	return []chart{
		a.draw("statements", "Statements", perSecond,
			ofSteps("Statements", "first", steps, func(s step) float64 { return s.rate(s.Statements) })),
		a.draw("waiting", "Callers waiting", decimal,
			ofSteps("Waiting", "first", steps, func(s step) float64 { return float64(s.Waiting) })),
		a.draw("wait", "Wait per caller", seconds,
			ofSteps("Mean wait", "first", steps, step.Wait)),
		a.draw("pools", "Pools opened and evicted", perSecond,
			ofSteps("Opened", "first", steps, func(s step) float64 { return s.rate(s.Opened) }),
			ofSteps("Evicted", "second", steps, func(s step) float64 { return s.rate(s.Evicted) })),
		a.draw("dials", "Dials failed", perSecond,
			ofSteps("Failed", "first", steps, func(s step) float64 { return s.rate(s.DialsFailed) })),
		a.draw("refusals", "Statements refused, openings failed", perSecond,
			ofSteps("Refused", "first", steps, func(s step) float64 { return s.rate(s.Refused) }),
			ofSteps("Openings failed", "second", steps, func(s step) float64 { return s.rate(s.OpenFailed) })),
	}
}
