package tenancystatus

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/figures"
)

func TestProblems(t *testing.T) {
	r := Report{Servers: []Server{
		{Server: "full", Waiting: 1200, Conns: 20, MaxConns: 20, Recent: ServerRecent{Seconds: 299, Exhausted: 1, Saturated: 7}},
		{Server: "", Down: true, DownSince: &noon},
		{Server: "fine", Recent: ServerRecent{Seconds: 299, Waits: 5, DialsFailed: 3}},
	}}
	require.Equal(t, []string{
		"(unnamed) is down since 12:00:00 UTC: connects failed, and callers fail at once.",
		"1,200 callers wait for a connection to full: 20 of 20 are taken.",
		"1 caller has waited in vain for a connection to full in the last 4 min 59 s.",
		"full itself had no connection left, 7 times in the last 4 min 59 s.",
	}, problems(r))

	for i := range 10 {
		r.Servers = append(r.Servers, Server{Server: fmt.Sprint(i), Waiting: 1})
	}
	v := newView(r, Config{Interval: time.Second, History: time.Minute})
	require.Len(t, v.Problems, maxProblems)
	require.Equal(t, 6, v.MoreProblems)
	require.Contains(t, v.Title, "(14) ")
}

func TestHealthy(t *testing.T) {
	for known, want := range map[int]string{0: "No tenant has been awake yet.", 1: "The server answers, and nobody waits.", 1234: "All 1,234 servers answer, and nobody waits."} {
		require.Equal(t, want, view{Report: Report{ServersKnown: known}}.Healthy())
	}
}

// Servers keep their places: who presses hardest changes with each sample.
func TestInOrder(t *testing.T) {
	var names []string
	for _, s := range inOrder([]Server{{Server: "z", Waiting: 5}, {Server: "b"}, {Server: "y", Down: true}, {Server: "a"}}) {
		names = append(names, s.Server)
	}
	require.Equal(t, []string{"y", "a", "b", "z"}, names)
}

func TestBar(t *testing.T) {
	row := serverRows([]Server{{MaxConns: 8, Conns: 5, ConnsInUse: 2, ConnsIdle: 2, ConnsDialing: 1}, {}})
	require.Equal(t, []band{{"0", "25"}, {"25", "25"}, {"50", "12.5"}}, []band{row[0].Busy, row[0].Spare, row[0].Coming})
	require.Equal(t, band{"0", "0"}, row[1].Busy)
}

// Each cause of an eviction says why.
func TestMeanings(t *testing.T) { require.Len(t, meanings, len(figures.Causes)) }
