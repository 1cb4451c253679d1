package tenancy

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A caller comes between handle.idle and server.share of a connection, gives it
// to who came before, and is itself refused.
func TestReviewRefusedAfterDelivering(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 2}, func(t *testing.T, l *lab) {
		a, b := l.pool("a", 2), l.pool("b", 1)
		held, other := hold(t, a), hold(t, b)
		s := a.dialer.server
		s.mu.Lock()
		s.breaker = breaker{open: true, failures: breakAfter, pause: firstProbe}
		s.mu.Unlock()
		probe := later(t.Context(), a) // the probe, which waits for a token
		synctest.Wait()
		require.Empty(t, probe)

		s.mu.Lock()
		h := s.links[0].handle
		s.mu.Unlock()
		require.Equal(t, a.dialer, h.link.dialer)
		h.state.Store(handleIdle) // as in idle, before share
		refused := <-later(t.Context(), a)
		require.ErrorIs(t, refused.err, ErrUnavailable)
		got := <-probe
		require.NoError(t, got.err)
		s.mu.Lock()
		tickets := len(a.dialer.tickets)
		s.mu.Unlock()
		require.Zero(t, tickets, "tickets of nobody: the next free token makes dispatchLocked panic")

		require.NoError(t, other.Close())
		b.retire()
		time.Sleep(time.Second)
		require.NoError(t, got.conn.Close())
		_ = held.Close()
	})
}
