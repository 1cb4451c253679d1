package tenancystatus

import (
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// noon is when the tests' figures are of.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func after(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }

func TestRoundUp(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 1: 1, 1.2: 1.5, 2: 2, 2.1: 3, 7: 8, 8.5: 10, 10: 10, 11: 15, 99: 100, 0.3: 0.3, 256: 300, 1e6: 1e6} {
		require.InDelta(t, want, roundUp(v), want*1e-9, v)
	}
	for v := 0.001; v < 1e7; v *= 1.37 {
		top := roundUp(v)
		require.GreaterOrEqual(t, top, v)
		require.LessOrEqual(t, top, 1.6*v, "not much room is wasted")
	}
}

func TestDraw(t *testing.T) {
	a := axis{from: noon, to: after(60)}
	c := a.draw("id", "Title", decimal,
		series{"One", "first", []point{{at: after(0), v: 0}, {at: after(30), v: 10}, {at: after(60), v: 5}}},
		series{"Two", "second", nil})
	require.Equal(t, "10", c.Top)
	require.Equal(t, "12:00:00", c.From)
	require.Equal(t, "12:01:00", c.To)
	require.Equal(t, line{Name: "One", Kind: "first", Now: "5", Path: "M0 100L300 0L600 50", Area: "M0 100L300 0L600 50L600 100 L0 100Z"}, c.Lines[0])
	require.Equal(t, line{Name: "Two", Kind: "second", Now: none}, c.Lines[1])
	require.Equal(t, "From 12:00:00 to 12:01:00 UTC. One: now 5, at least 0, at most 10, on average 5. Two: nothing yet.", c.Desc)
}

// Where a server was not remembered the line is broken, and never drawn over.
func TestGap(t *testing.T) {
	samples := []Sample{
		{Time: after(0), Servers: []ServerSample{{Server: "x", Conns: 2}}},
		{Time: after(10)},
		{Time: after(20), Servers: []ServerSample{{Server: "x", Conns: 1}}},
		{Time: after(30), Servers: []ServerSample{{Server: "x", Conns: 1}, {Server: "y"}}},
	}
	s := ofServer("x", "first", "x", samples, func(s *ServerSample) int { return s.Conns })
	curve, area := axis{noon, after(60)}.path(s.points, 2)
	require.Equal(t, "M0 0M200 50L300 50", curve)
	require.Equal(t, "M0 0L0 100 L0 100ZM200 50L300 50L300 100 L200 100Z", area)
}

func TestDowns(t *testing.T) {
	a := axis{noon, after(60)}
	var samples []Sample
	for i, down := range []bool{false, true, true, false, true, true} {
		samples = append(samples, Sample{Time: after(10 * i), Servers: []ServerSample{{Server: "x", Down: down}}})
	}
	require.Equal(t, []band{{"100", "200"}, {"400", "200"}}, a.downs("x", samples), "to the end, if it still is")
	require.Empty(t, a.downs("y", samples))
}

// What is out of the page's time is at its edge, not beside the chart.
func TestOutside(t *testing.T) {
	a := axis{noon, after(60)}
	require.Zero(t, a.x(after(-5)))
	require.EqualValues(t, chartWidth, a.x(after(65)))
}

// The SVG on the page is well-formed, and each chart has its words.
func TestSVG(t *testing.T) {
	down := ServerSample{Server: `a<b>&"c"`, Down: true, MaxConns: 2, Conns: 1}
	r := Report{Time: after(60), Since: noon, ServersKnown: 1, Servers: []Server{{Server: down.Server, Down: true, DownSince: &noon, MaxConns: 2}},
		History: []Sample{{Time: after(0), Servers: []ServerSample{down}}, {Time: after(50), StatementsTotal: 100, Servers: []ServerSample{down}}}}
	var out strings.Builder
	require.NoError(t, render(&out, newView(r, Config{History: time.Minute, Interval: time.Second})))
	charts, ids := 0, map[string]bool{}
	for _, part := range strings.Split(out.String(), "<svg ")[1:] {
		text, _, ok := strings.Cut(part, "</svg>")
		require.True(t, ok)
		var svg struct {
			Labels string `xml:"aria-labelledby,attr"`
			Title  struct {
				ID   string `xml:"id,attr"`
				Text string `xml:",chardata"`
			} `xml:"title"`
			Desc struct {
				ID   string `xml:"id,attr"`
				Text string `xml:",chardata"`
			} `xml:"desc"`
		}
		require.NoError(t, xml.Unmarshal([]byte("<svg "+text+"</svg>"), &svg), text)
		if svg.Labels == "" {
			continue
		}
		charts++
		require.Equal(t, svg.Labels, svg.Title.ID+" "+svg.Desc.ID)
		require.NotEmpty(t, svg.Title.Text)
		require.Contains(t, svg.Desc.Text, "From 12:00:00 to 12:01:00 UTC.")
		require.False(t, ids[svg.Title.ID], "an id is there once")
		ids[svg.Title.ID] = true
	}
	require.Equal(t, 7, charts, "one of the server and six of all")
	require.Contains(t, out.String(), "It was down for a part of that.")
}
