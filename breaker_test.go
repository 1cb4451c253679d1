package tenancy

import (
	"context"
	"database/sql"
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

func TestBreaker(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 20, MaxConnsPerTenant: 1}, func(t *testing.T, l *lab) {
		var down sync.Mutex // locked while the server is away
		l.dial = func(context.Context, string) error {
			if !down.TryLock() {
				return errLabDown
			}
			down.Unlock()
			return nil
		}
		well := l.pool("well", 1)
		require.NoError(t, exec(well))
		down.Lock()
		a := l.pool("a", 1)
		for range breakAfter {
			require.ErrorIs(t, exec(a), errLabDown)
		}
		require.False(t, a.dialer.server.stats().Down, "it may be a's fault alone")
		require.ErrorContains(t, exec(a), "the tenant's connects to server db1:5432 failed 5 times in a row")
		b := l.pool("b", 1)
		require.ErrorIs(t, exec(b), errLabDown)
		require.True(t, a.dialer.server.stats().Down)
		dials := l.dialled()
		began := time.Now()
		for range 100 {
			err := exec(b)
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, err, errLabDown)
			require.ErrorContains(t, err, "server db1:5432 could not be reached 6 times in a row")
		}
		require.Zero(t, time.Since(began))
		require.Equal(t, dials, l.dialled())
		require.NoError(t, exec(well), "what is connected stays in use")
		require.Len(t, l.of(EventServerDown), 1)

		for range 100 { // somebody wants it all the time
			time.Sleep(100 * time.Millisecond)
			require.Error(t, exec(b))
		}
		probes := l.dialled() - dials
		require.Greater(t, probes, 9)
		require.Less(t, probes, 15)

		down.Unlock()
		began = time.Now()
		for exec(b) != nil {
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(began), lastProbe+50*time.Millisecond)
		require.NoError(t, exec(a))
		require.False(t, a.dialer.server.stats().Down)
		require.EqualValues(t, 1, a.dialer.server.stats().Trips)
		require.Len(t, l.of(EventServerUp), 1)
	})
}

// A server that says nothing: connects time out whatever the patience of the
// callers, and who waits fails when the breaker opens.
func TestBreakerOfASilentServer(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 6, ConnectTimeout: 5 * time.Second}, func(t *testing.T, l *lab) {
		thawed := make(chan struct{})
		l.dial = func(ctx context.Context, _ string) error {
			select {
			case <-thawed:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		began := time.Now()
		for i := range 6 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			require.ErrorIs(t, l.pool(fmt.Sprint(i), 1).db.PingContext(ctx), context.DeadlineExceeded)
			cancel()
		}
		queued := later(t.Context(), l.pool("queued", 1))
		err := (<-queued).err
		require.ErrorIs(t, err, ErrUnavailable)
		require.InDelta(t, 5.5, time.Since(began).Seconds(), 0.2, "when five have timed out, and not a timeout later")
		require.True(t, l.join("db1:5432").stats().Down)
		l.join("db1:5432").pools -= 2

		// Probes that hang don't keep later ones from finding it alive.
		probe := l.pool("probe", 1)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		time.Sleep(time.Second)
		require.ErrorIs(t, probe.db.PingContext(ctx), context.DeadlineExceeded)
		close(thawed)
		time.Sleep(time.Second)
		require.NoError(t, exec(l.pool("later", 1)))
	})
}

// Faults that say nothing of the server don't open its breaker.
func TestFaultsOfOneTenant(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 4}, func(t *testing.T, l *lab) {
		l.dial = func(_ context.Context, tenant string) error {
			if tenant == "dropped" {
				time.Sleep(time.Second)
				return errLabMissing
			}
			return nil
		}
		p := l.pool("dropped", 2)
		var waiting []<-chan outcome
		for range 50 {
			waiting = append(waiting, later(t.Context(), p))
		}
		began := time.Now()
		for _, w := range waiting {
			got := <-w
			require.ErrorIs(t, got.err, ErrUnavailable)
			require.ErrorIs(t, got.err, errLabMissing)
		}
		require.Equal(t, time.Second, time.Since(began), "one answer is enough for all")
		for range 100 {
			require.ErrorIs(t, exec(p), errLabMissing)
		}
		require.Equal(t, time.Second, time.Since(began), "and is remembered")
		synctest.Wait()
		require.LessOrEqual(t, l.dialled(), 2)
		require.NoError(t, exec(l.pool("other", 1)))
		time.Sleep(5 * time.Second)
		l.dial = nil
		require.NoError(t, exec(p), "but not for long")
		require.False(t, p.dialer.server.stats().Down)
	})
}

// A server without a connection left is tried again, for a while.
func TestSaturation(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		left := 5
		l.dial = func(context.Context, string) error {
			if left--; left >= 0 {
				return errLabFull
			}
			return nil
		}
		p := l.pool("a", 1)
		began := time.Now()
		require.NoError(t, exec(p))
		require.Less(t, time.Since(began), time.Second)
		require.EqualValues(t, 5, p.dialer.server.stats().Saturated)

		left = 1 << 30
		q := l.pool("b", 1)
		began = time.Now()
		for range 2 * breakAfter {
			err := exec(q)
			require.ErrorIs(t, err, ErrPoolExhausted)
			require.ErrorIs(t, err, errLabFull)
			require.ErrorContains(t, err, "no connection left")
		}
		require.InDelta(t, (2 * breakAfter * saturationPatience).Seconds(), time.Since(began).Seconds(), 2)
		require.False(t, q.dialer.server.stats().Down)
	})
}

// Databases whose server is not known share a budget, but one that is down says
// nothing of the others.
func TestUnknownServersHaveNoBreaker(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 1, Servers: map[string]int{"big": 7}}, func(t *testing.T, l *lab) {
		l.dial = func(_ context.Context, tenant string) error {
			if tenant == "down" {
				return errLabDown
			}
			return nil
		}
		pool := func(tenant string) *pool {
			p := newPool(tenant, &labConnector{l, tenant}, labEngine{}, l.join(""), Database{}, l.limits)
			l.pools = append(l.pools, p)
			return p
		}
		down := pool("down")
		for range 3 * breakAfter {
			require.ErrorIs(t, exec(down), errLabDown)
		}
		require.NoError(t, exec(pool("up")))
		require.Equal(t, 1, down.dialer.server.stats().MaxConns)
		require.Equal(t, 7, l.join("big").stats().MaxConns)
		l.join("big").pools -= 2
	})
}

func TestFewServersAreRemembered(t *testing.T) {
	l := newLab(t, Limits{})
	kept := l.join("kept")
	down := l.join("down")
	down.pools, down.breaker.open = 0, true
	for i := range 5 * manyServers {
		l.join(fmt.Sprint(i)).pools--
		require.LessOrEqual(t, len(l.m), manyServers)
	}
	require.Same(t, kept, l.m["kept"])
	require.Same(t, down, l.m["down"])
}

// A server that is full must not look like one that is down, also where the
// connect's own deadline comes before the patience with a full server.
func TestSaturationWithAShortConnectTimeout(t *testing.T) {
	inLab(t, Limits{MaxConnsPerTenant: 1, ConnectTimeout: time.Second}, func(t *testing.T, l *lab) {
		l.dial = func(context.Context, string) error { return errLabFull }
		for i := range 8 {
			err := exec(l.pool(fmt.Sprint(i), 1))
			require.ErrorIs(t, err, ErrPoolExhausted, "%v", err)
		}
		require.Empty(t, l.of(EventServerDown))
	})
}

// One tenant whose connects hang, a database that is being cloned for instance,
// must not cut off the others.
func TestOneTenantsHangIsNotTheServers(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 20, ConnectTimeout: time.Second}, func(t *testing.T, l *lab) {
		l.dial = func(ctx context.Context, tenant string) error {
			if tenant == "hangs" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		bad := l.pool("hangs", 8)
		stop := callers(8, 5*time.Millisecond, func() {
			_ = exec(bad)
		})
		time.Sleep(1500 * time.Millisecond)
		failed := 0
		for i := range 20 {
			if err := exec(l.pool(fmt.Sprint(i), 1)); err != nil {
				failed++
			}
			time.Sleep(time.Second)
		}
		stop()
		require.Zero(t, failed, "of 20 healthy tenants; the breaker tripped %d times", bad.dialer.server.count.tripped)
	})
}

// A server that hangs while all of its budget is taken: there is no connection
// left to try it with, and none comes back.
func TestBreakerWhenNothingIsLeftToTry(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 2, AcquireTimeout: time.Minute}, func(t *testing.T, l *lab) {
		a, b, c := l.pool("a", 1), l.pool("b", 1), l.pool("c", 1)
		one, two := hold(t, a), hold(t, b)
		l.hangUp = make(chan struct{})
		require.NoError(t, one.Raw(func(any) error { return nil }))
		for _, held := range []*sql.Conn{one, two} { // as after a cancelled statement
			require.Error(t, held.Raw(func(any) error { return driver.ErrBadConn }))
		}
		time.Sleep(time.Minute)
		require.False(t, a.dialer.server.stats().Down, "nobody wants it")
		began := time.Now()
		_, err := c.db.ExecContext(t.Context(), "x")
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, errHangUp)
		require.LessOrEqual(t, time.Since(began), 3*hangUpTime)
		require.True(t, a.dialer.server.stats().Down)

		close(l.hangUp)
		time.Sleep(lastProbe)
		require.NoError(t, exec(c))
		require.False(t, a.dialer.server.stats().Down)
	})
}

// Who waits for a connection of its own tenant does not ask whether the server
// can be reached.
func TestOwnConnectionsWhileTheServerIsDown(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		a, b := l.pool("a", 1), l.pool("b", 1)
		held := hold(t, a)
		before := later(t.Context(), a)
		time.Sleep(time.Millisecond)
		l.dial = func(context.Context, string) error { return errLabDown }
		for range 2 * breakAfter {
			require.Error(t, exec(b))
		}
		require.Error(t, exec(l.pool("c", 1)))
		after := later(t.Context(), a)
		time.Sleep(time.Millisecond)
		require.NoError(t, held.Close())
		got := <-before
		assert.NoError(t, got.err)
		if got.err == nil {
			require.NoError(t, got.conn.Close())
		}
		got = <-after
		assert.NoError(t, got.err)
		if got.err == nil {
			require.NoError(t, got.conn.Close())
		}
	})
}

// Callers of a tenant that is at its limit can't dial, so they must not use up
// the probes.
func TestProbesOfATenantAtItsLimit(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		var down atomic.Bool
		l.dial = func(context.Context, string) error {
			if down.Load() {
				return errLabDown
			}
			return nil
		}
		a, b := l.pool("a", 1), l.pool("b", 1)
		held := hold(t, a) // a long transaction
		defer held.Close()
		down.Store(true)
		for range breakAfter {
			require.Error(t, exec(b))
		}
		require.Error(t, exec(l.pool("c", 1)))
		require.True(t, a.dialer.server.stats().Down)
		down.Store(false) // it was a blip
		stop := callers(50, 10*time.Millisecond, func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = a.db.PingContext(ctx)
			cancel()
		})
		began := time.Now()
		for exec(b) != nil && time.Since(began) < 10*time.Minute {
			time.Sleep(97 * time.Millisecond)
		}
		stop()
		require.Less(t, time.Since(began), 3*time.Second)
		time.Sleep(time.Minute)
	})
}

// One tenant whose connects fail, as an engine that has a bound of its own says it
// (tenancypg: 5 s of 10 s), or at once (its TLS).
func TestOneTenantsFailureIsNotTheServers(t *testing.T) {
	for _, took := range []time.Duration{5 * time.Second, 0} {
		t.Run(took.String(), func(t *testing.T) {
			inLab(t, Limits{}, func(t *testing.T, l *lab) {
				l.dial = func(_ context.Context, tenant string) error {
					if tenant == "bad" {
						time.Sleep(took)
						return errLabDown
					}
					return nil
				}
				bad := l.pool("bad", 4)
				stop := callers(8, 50*time.Millisecond, func() {
					_ = exec(bad)
				})
				time.Sleep(11 * time.Second)
				failed := 0
				for i := range 15 {
					if exec(l.pool(fmt.Sprint(i), 1)) != nil {
						failed++
					}
					time.Sleep(20*time.Second + 37*time.Millisecond)
				}
				stop()
				time.Sleep(time.Minute)
				require.Zero(t, failed, "of 15; tripped %d times", bad.dialer.server.count.tripped)
			})
		})
	}
}

// Nor may it take every probe, once the breaker is open for all: another
// tenant's connect has failed by chance.
func TestProbesOfATenantThatFails(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		var blip atomic.Bool
		l.dial = func(_ context.Context, tenant string) error {
			if tenant == "bad" || blip.Load() {
				return errLabDown
			}
			return nil
		}
		bad := l.pool("bad", 4)
		stop := callers(8, 5*time.Millisecond, func() {
			_ = exec(bad)
		})
		time.Sleep(2 * time.Second)
		blip.Store(true)
		_ = exec(l.pool("unlucky", 1))
		blip.Store(false)
		b := l.pool("b", 1)
		began := time.Now()
		for exec(b) != nil && time.Since(began) < time.Minute {
			time.Sleep(97 * time.Millisecond)
		}
		stop()
		require.Less(t, time.Since(began), 3*time.Second)
		time.Sleep(time.Second)
	})
}

// A silent server of which only one tenant is used, though several are open.
func TestSilentServerWithOneTenantInUse(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		l.dial = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		l.pool("asleep", 4)
		a := l.pool("a", 4)
		var fast, slow atomic.Int32
		began := time.Now()
		stop := callers(20, 100*time.Millisecond, func() {
			b := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_ = a.db.PingContext(ctx)
			cancel()
			if time.Since(began) > time.Minute {
				if time.Since(b) > time.Second {
					slow.Add(1)
				} else {
					fast.Add(1)
				}
			}
		})
		time.Sleep(10 * time.Minute)
		stop()
		time.Sleep(time.Minute)
		require.Less(t, int(slow.Load()), 9*60*2, "about one a second tries")
		require.Greater(t, fast.Load(), slow.Load())
	})
}
