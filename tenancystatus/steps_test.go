package tenancystatus

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSteps(t *testing.T) {
	steps := stepsOf([]Sample{
		{Time: after(0), StatementsTotal: 100, OpenedTotal: 1, ServersKnown: 1,
			Servers: []ServerSample{{Server: "x", Waiting: 3, WaitsTotal: 10, WaitSecondsTotal: 1}}},
		{Time: after(2), StatementsTotal: 150, OpenedTotal: 1, EvictedTotal: 4, Waiting: 5, ServersKnown: 2,
			Servers: []ServerSample{
				{Server: "x", Waiting: 4, WaitsTotal: 14, WaitSecondsTotal: 4, DialsFailedTotal: 1},
				{Server: "y", Waiting: 1, WaitsTotal: 2, WaitSecondsTotal: 0.5}, // new
			}},
		{Time: after(2), StatementsTotal: 151}, // the same moment says nothing of rates
	})
	require.Len(t, steps, 1)
	s := steps[0]
	require.Equal(t, after(2), s.At)
	require.Equal(t, 2.0, s.Seconds)
	require.Equal(t, 25.0, s.rate(s.Statements))
	require.EqualValues(t, 0, s.Opened)
	require.EqualValues(t, 4, s.Evicted)
	require.EqualValues(t, 1, s.DialsFailed)
	require.Equal(t, 5, s.Waiting)
	require.EqualValues(t, 6, s.Waits)
	require.EqualValues(t, 4, s.Ended, "x: 3 waited, 4 came, 4 wait still; y: 2 came, 1 waits still")
	require.Equal(t, 3.5/4, s.Wait())
}

// Callers that came before the first sample and gave up together have waits that
// ended, though none began.
func TestWaitsThatEndTogether(t *testing.T) {
	s := stepsOf([]Sample{
		{Time: after(0), ServersKnown: 1, Servers: []ServerSample{{Server: "x", Waiting: 50, WaitsTotal: 50}}},
		{Time: after(2), ServersKnown: 1, Servers: []ServerSample{{Server: "x", WaitsTotal: 50, WaitSecondsTotal: 500, ExhaustedTotal: 50}}},
	})[0]
	require.Equal(t, 10.0, s.Wait())
	require.Zero(t, s.Waits)
	require.EqualValues(t, 50, s.Exhausted)
	require.Zero(t, step{}.Wait())
}

// A server that was not among those remembered is not taken for a new one: all
// that it has ever counted would be of this step.
func TestNotRemembered(t *testing.T) {
	busy := ServerSample{Server: "y", WaitsTotal: 1000, DialsFailedTotal: 1000}
	for known, want := range map[int]uint64{1: 1000, 2: 0} {
		s := stepsOf([]Sample{
			{Time: after(0), ServersKnown: known, Servers: []ServerSample{{Server: "x"}}},
			{Time: after(2), ServersKnown: 2, Servers: []ServerSample{busy}},
		})[0]
		require.Equal(t, want, s.DialsFailed, "%d were known", known)
	}
}

func TestForgottenServer(t *testing.T) {
	require.EqualValues(t, 5, grown(uint64(3), uint64(8)))
	require.EqualValues(t, 2, grown(uint64(10), uint64(2)), "it starts from 0 again")
}

func TestRows(t *testing.T) {
	var steps []step
	for i := range 25 {
		steps = append(steps, step{At: after(i), Seconds: 1, Statements: 10, Waiting: i})
	}
	rows := rowsOf(steps, 10)
	require.Len(t, rows, 9)
	require.Equal(t, step{At: after(24), Seconds: 3, Statements: 30, Waiting: 24}, rows[0], "the latest first")
	var sum uint64
	for _, r := range rows {
		sum += r.Statements
	}
	require.EqualValues(t, 250, sum)
	require.Empty(t, rowsOf(nil, 10))
	require.Len(t, rowsOf(steps[:1], 10), 1)
}
