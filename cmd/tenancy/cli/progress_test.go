package cli

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// Without a terminal there is a line at the beginning, one in a while, one at
// once for what is amiss, and one at the end.
func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&talk{w: &out})
	said := func(e migrate.Event) string {
		out.Reset()
		p.event(e)
		return out.String()
	}
	counts := func(done, failed, left int) migrate.Counts {
		return migrate.Counts{Done: done, Failed: failed, Left: left}
	}
	require.Equal(t, "migrating 100 tenants\n", said(migrate.Event{Kind: migrate.EventBegun, Counts: counts(0, 0, 100)}))
	require.Empty(t, said(migrate.Event{Kind: migrate.EventProgress, Counts: counts(10, 0, 90)}), "too soon")
	require.Empty(t, said(migrate.Event{Kind: migrate.EventDone, Counts: counts(11, 0, 89)}))

	p.told, p.began = p.told.Add(-sayEvery), p.began.Add(-10*time.Second)
	require.Equal(t, "20 of 100, 0 failed, 2.0/s, 40s left\n", said(migrate.Event{Kind: migrate.EventProgress, Counts: counts(20, 0, 80)}))
	require.Empty(t, said(migrate.Event{Kind: migrate.EventProgress, Counts: counts(21, 0, 79)}))

	err := errors.New("no such\n\ttable: \x1b[31mx")
	for kind, want := range map[migrate.EventKind]string{
		migrate.EventFailed:     "failed: acme on s1: no such table: \\x1b[31mx\n",
		migrate.EventRetry:      "again in 1.5s: acme on s1: no such table: \\x1b[31mx\n",
		migrate.EventServerDown: "down: server s1: no such table: \\x1b[31mx\n",
		migrate.EventServerLeft: "left out: the tenants of server s1: no such table: \\x1b[31mx\n",
		migrate.EventHalted:     "halted: no such table: \\x1b[31mx\n",
	} {
		require.Equal(t, want, said(migrate.Event{Kind: kind, Result: migrate.Result{Tenant: "acme"}, Server: "s1", Err: err, Pause: 1500 * time.Millisecond}))
	}
	require.Equal(t, "100 of 100, 1 failed\n", said(migrate.Event{Kind: migrate.EventEnded, Counts: counts(99, 1, 0)}))
	p.end()
}
