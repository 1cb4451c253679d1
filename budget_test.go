package tenancy

import (
	"context"
	"database/sql/driver"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBudgetIdleConnectionOfTheLeastRecentlyUsedTenantGoes(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 3}, func(t *testing.T, l *lab) {
		a, b, c, d := l.pool("a", 4), l.pool("b", 4), l.pool("c", 4), l.pool("d", 4)
		for _, p := range []*pool{a, b, c, a} {
			require.NoError(t, exec(p))
			time.Sleep(quantum)
		}
		require.NoError(t, exec(d))
		synctest.Wait()
		require.Equal(t, []int{1, 0, 1, 1}, []int{l.conns("a"), l.conns("b"), l.conns("c"), l.conns("d")})
		st := a.dialer.server.stats()
		require.EqualValues(t, 1, st.Reclaimed)
		require.EqualValues(t, 1, st.Waits)
		require.Equal(t, 3, st.Conns)
		require.Equal(t, 3, st.Idle)
		require.Len(t, l.of(EventWaited), 1)
		require.Equal(t, "d", l.of(EventWaited)[0].Tenant)
		require.Equal(t, "db1:5432", l.of(EventWaited)[0].Server)
		// What database/sql still has of b's is not used.
		require.NoError(t, exec(b))
		require.Equal(t, 1, l.conns("b"))
	})
}

// A new connection serves its quantum first, and not longer if others wait.
func TestBudgetQuantum(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 1}, func(t *testing.T, l *lab) {
		a, b := l.pool("a", 1), l.pool("b", 1)
		require.NoError(t, exec(a))
		began := time.Now()
		require.NoError(t, exec(b))
		took := time.Since(began)
		require.Greater(t, took, quantum/2)
		require.Less(t, took, 2*quantum)

		// In use without a pause it is given up too.
		stop := make(chan struct{})
		var busy sync.WaitGroup
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := exec(b); err != nil {
						t.Error(err)
					}
				}
			}
		})
		time.Sleep(time.Second)
		for range 20 {
			began = time.Now()
			require.NoError(t, exec(a))
			require.Less(t, time.Since(began), 2*quantum)
		}
		close(stop)
		busy.Wait()
	})
}

func TestBudgetFirstComeFirstServed(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 1}, func(t *testing.T, l *lab) {
		held := hold(t, l.pool("first", 1))
		var order []<-chan outcome
		for i := range 10 {
			order = append(order, later(t.Context(), l.pool(fmt.Sprint(i), 1)))
			synctest.Wait()
		}
		require.NoError(t, held.Close())
		time.Sleep(quantum) // held is idle, and taken when it has served that long
		for i, next := range order {
			got := <-next
			require.NoError(t, got.err, i)
			synctest.Wait()
			for _, other := range order[i+1:] {
				require.Empty(t, other)
			}
			time.Sleep(quantum)
			require.NoError(t, got.conn.Close())
		}
	})
}

// A connection that comes back goes to who waits for one of the same tenant,
// as it is.
func TestBudgetHandsOver(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 5, MaxConnsPerTenant: 1}, func(t *testing.T, l *lab) {
		a := l.pool("a", 1)
		held := hold(t, a)
		var waiting []<-chan outcome
		for range 10 {
			waiting = append(waiting, later(t.Context(), a))
			synctest.Wait()
		}
		require.Equal(t, []TenantStats{{Tenant: "a", Server: "db1:5432", MaxConns: 1, Conns: 1, Waiting: 10, Waits: 10}}, []TenantStats{a.dialer.stats()})
		time.Sleep(time.Second)
		require.NoError(t, held.Close())
		for i, w := range waiting {
			got := <-w
			require.NoError(t, got.err)
			synctest.Wait()
			for _, other := range waiting[i+1:] {
				require.Empty(t, other, "in turn")
			}
			require.NoError(t, got.conn.Close())
		}
		require.Equal(t, 1, l.dialled())
		require.EqualValues(t, 10, a.dialer.server.stats().HandedOver)
		require.GreaterOrEqual(t, a.dialer.stats().WaitTime, 10*time.Second)
		require.NoError(t, exec(a))
		require.Equal(t, 1, l.dialled())
	})
}

func TestEveryWaitEndsAndSaysWhy(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 2, AcquireTimeout: 3 * time.Second, ConnectTimeout: time.Minute}, func(t *testing.T, l *lab) {
		a, b, slow := l.pool("a", 1), l.pool("b", 1), l.pool("slow", 1)
		fails := func(ctx context.Context, p *pool, after time.Duration, want ...error) string {
			t.Helper()
			began := time.Now()
			_, err := p.db.ExecContext(ctx, "x")
			require.Equal(t, after, time.Since(began))
			for _, w := range want {
				require.ErrorIs(t, err, w)
			}
			return err.Error()
		}
		held := hold(t, a)
		require.Equal(t, "tenancy: connect: tenant a: connection pool exhausted: waited 3s: the tenant's 1 connections are all in use, and 1 callers wait; "+
			"close Rows and end transactions sooner, or raise Database.MaxConns or Limits.MaxConnsPerTenant",
			fails(t.Context(), a, 3*time.Second, ErrPoolExhausted))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		fails(ctx, a, time.Second, ErrPoolExhausted, context.DeadlineExceeded)
		cancelled, cancelCause := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancelCause(errLabFull) })
		fails(cancelled, a, time.Second, context.Canceled, errLabFull)

		other := hold(t, b)
		require.Equal(t, "tenancy: connect: tenant slow: connection pool exhausted: waited 3s: this process's 2 connections to server db1:5432 are all in use, and 1 callers wait; "+
			"close Rows and end transactions sooner, hold no connection while waiting for another, or raise Limits.MaxConnsPerServer",
			fails(t.Context(), slow, 3*time.Second, ErrPoolExhausted))
		st := a.dialer.server.stats()
		require.EqualValues(t, 4, st.Waits)
		require.EqualValues(t, 3, st.Exhausted, "who is cancelled does not count")
		require.Zero(t, st.Waiting)
		require.NoError(t, other.Close())

		l.dial = func(ctx context.Context, tenant string) error { <-ctx.Done(); return ctx.Err() }
		require.Contains(t, fails(t.Context(), slow, 3*time.Second, ErrUnavailable), "still connecting to server db1:5432 after 3s")
		require.NoError(t, held.Close())
	})
}

// A connection that takes long to close does not keep the waiter from another
// that is idle.
func TestSlowCloseOfAReclaimedConnection(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 2}, func(t *testing.T, l *lab) {
		slow := &slowConnector{}
		a := newPool("a", slow, labEngine{}, l.join("s"), Database{MaxConns: 1}, l.limits)
		b := newPool("b", &staleConnector{}, labEngine{}, l.join("s"), Database{MaxConns: 1}, l.limits)
		c := newPool("c", &staleConnector{}, labEngine{}, l.join("s"), Database{MaxConns: 1}, l.limits)
		for _, p := range []*pool{a, b, c} {
			defer func() { p.retire(); <-p.gone() }()
		}
		require.NoError(t, hold(t, a).Close())
		time.Sleep(time.Second)
		require.NoError(t, hold(t, b).Close())
		time.Sleep(time.Second)
		began := time.Now()
		require.NoError(t, hold(t, c).Close())
		require.Less(t, time.Since(began), 2*time.Second)
	})
}

type slowConnector struct{ staleConnector }

func (c *slowConnector) Connect(context.Context) (driver.Conn, error) {
	return &slowConn{staleConn{c: &c.staleConnector}}, nil
}

type slowConn struct{ staleConn }

func (c *slowConn) Close() error { time.Sleep(5 * time.Second); return nil }

// A caller comes between handle.idle and server.share of a connection, gives it
// to who came before, and is itself refused.
func TestRefusedAfterDelivering(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 2}, func(t *testing.T, l *lab) {
		a, b := l.pool("a", 2), l.pool("b", 1)
		held, other := hold(t, a), hold(t, b)
		s := a.dialer.server
		s.mu.Lock()
		s.breaker = breaker{open: true, several: true, failures: breakAfter, pause: firstProbe}
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

// A tenant with many callers, whose own ticket is the first, must not hand its
// connections from one of them to the next for ever. In real time: what it is
// about is a matter of luck in a bubble.
func TestNoisyTenantStarvesOthers(t *testing.T) {
	for _, c := range []struct{ size, held int }{{2, 0}, {20, 17}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			l := newLab(t, Limits{MaxConnsPerServer: c.size, MaxConnsPerTenant: 4})
			defer l.end()
			holder, noisy := l.pool("holder", c.size), l.pool("noisy", 0)
			for range c.held {
				defer hold(t, holder).Close()
			}
			var served atomic.Int64
			stop := callers(16, 0, func() {
				if exec(noisy) == nil {
					served.Add(1)
				}
			})
			require.Eventually(t, func() bool { return served.Load() > 50 }, 10*time.Second, time.Millisecond)
			for i := range 10 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err := l.pool(fmt.Sprint("b", i), 1).db.ExecContext(ctx, "x")
				cancel()
				if !assert.NoError(t, err) {
					break
				}
			}
			stop()
		})
	}
}

// earlyConnector releases its permit when the connection breaks, before Close.
type earlyConn struct {
	bare
	permit Permit
}
type bare struct{}

func (bare) Prepare(string) (driver.Stmt, error) { return nil, errLabDown }
func (bare) Begin() (driver.Tx, error)           { return labTx{}, nil }

type earlyConnector struct{}

func (earlyConnector) Driver() driver.Driver                        { return nil }
func (earlyConnector) Connect(context.Context) (driver.Conn, error) { panic("") }
func (earlyConnector) ConnectPermit(_ context.Context, p Permit) (driver.Conn, error) {
	return &earlyConn{permit: p}, nil
}
func (c *earlyConn) Close() error { c.permit.Release(); return nil }

func TestPermitReleasedBeforeClose(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 2}, func(t *testing.T, l *lab) {
		p := newPool("early", earlyConnector{}, labEngine{}, l.join("db1:5432"), Database{}, l.limits)
		l.pools = append(l.pools, p)
		other, third := l.pool("other", 2), l.pool("third", 1)
		c := hold(t, p)
		require.NoError(t, c.Raw(func(c any) error {
			c.(interface{ Unwrap() driver.Conn }).Unwrap().(*earlyConn).permit.Release() // the socket is gone
			return nil
		}))
		one, two := hold(t, other), hold(t, other)
		next := later(t.Context(), third)
		time.Sleep(time.Second)
		require.NoError(t, c.Close())
		time.Sleep(time.Second)
		assert.Zero(t, p.dialer.server.closing)
		require.NoError(t, one.Close())
		got := <-next
		assert.NoError(t, got.err)
		if got.err == nil {
			_ = got.conn.Close()
		}
		_ = two.Close()
	})
}

// fullConnector finds the server full when it asks a new connection something:
// by then that has given its permit back.
type fullConnector struct {
	earlyConnector
	t     *testing.T
	fails int
	seen  map[Permit]bool
}

func (c *fullConnector) ConnectPermit(_ context.Context, p Permit) (driver.Conn, error) {
	if c.seen[p] {
		c.t.Error("a permit that was given back is used again")
	}
	c.seen[p] = true
	if len(c.seen) <= c.fails {
		p.Release()
		return nil, errLabFull
	}
	return &earlyConn{permit: p}, nil
}

func TestPermitReleasedByFailedConnect(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 1}, func(t *testing.T, l *lab) {
		c := &fullConnector{t: t, fails: 1, seen: map[Permit]bool{}}
		p := newPool("full", c, labEngine{}, l.join("s"), Database{}, l.limits)
		l.pools = append(l.pools, p)
		_, err := p.db.Conn(t.Context())
		require.ErrorIs(t, err, ErrPoolExhausted)
		conn, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, p.dialer.server.stats().Conns)
		require.NoError(t, conn.Close())
	})
}
