package tenancy

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// lab has servers whose connections it counts. Dials take a millisecond, unless
// dial says otherwise.
type lab struct {
	*servers
	t      testing.TB
	limits Limits
	dial   func(ctx context.Context, tenant string) error

	mu     sync.Mutex
	pools  []*pool
	open   map[string]int // connections by tenant, from before the dial
	all    int
	peak   int
	dials  int
	closed int
	prep   bool // a connection was used by two at once
	events []Event
}

func inLab(t *testing.T, limits Limits, test func(t *testing.T, l *lab)) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, limits)
		defer l.end()
		test(t, l)
	})
}

func newLab(t testing.TB, limits Limits) *lab {
	limits = Config{Pools: limits}.withDefaults().Pools
	l := &lab{t: t, limits: limits, open: map[string]int{}}
	l.servers = newServers(limits, func(e Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, e)
	})
	return l
}

// end retires all pools, and checks that nothing is left.
func (l *lab) end() {
	for _, p := range l.pools {
		p.retire()
	}
	for _, p := range l.pools {
		<-p.gone()
	}
	for _, s := range l.servers.all() {
		st := s.stats()
		if st.Conns != 0 || st.Waiting != 0 || st.Pools != 0 || len(s.links) != 0 || s.tickets.Len() != 0 || s.closing != 0 || len(s.callers) != 0 {
			l.t.Errorf("server %q is not empty in the end: %+v", s.name, st)
		}
		if st.MaxConns < l.peak {
			l.t.Errorf("%d connections at once, the budget is %d", l.peak, st.MaxConns)
		}
	}
	if l.all != 0 {
		l.t.Errorf("%d connections are left: %v", l.all, l.open)
	}
}

func (l *lab) pool(tenant string, limit int) *pool {
	p := newPool(tenant, &labConnector{l, tenant}, labEngine{}, l.join("db1:5432"), Database{MaxConns: limit}, l.limits)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pools = append(l.pools, p)
	return p
}

func (l *lab) conns(tenant string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open[tenant]
}

func (l *lab) dialled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

func (l *lab) of(kind EventKind) (found []Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

var (
	errLabDown    = errors.New("connection refused")
	errLabFull    = errors.New("too many connections")
	errLabMissing = errors.New("no such database")
)

// labEngine classifies the errors above.
type labEngine struct{ Engine }

func (labEngine) Classify(err error) Fault {
	switch {
	case errors.Is(err, errLabDown):
		return FaultServer
	case errors.Is(err, errLabFull):
		return FaultSaturation
	case errors.Is(err, errLabMissing):
		return FaultTenant
	}
	return FaultNone
}

type labConnector struct {
	l      *lab
	tenant string
}

func (c *labConnector) Driver() driver.Driver { return nil }

// ConnectPermit makes it a PermitConnector whose connections linger after
// Close.
func (c *labConnector) ConnectPermit(ctx context.Context, p Permit) (driver.Conn, error) {
	c.l.mu.Lock()
	c.l.dials++
	c.l.open[c.tenant]++
	c.l.all++
	c.l.peak = max(c.l.peak, c.l.all)
	dial := c.l.dial
	c.l.mu.Unlock()
	err := func() error {
		if dial != nil {
			if err := dial(ctx, c.tenant); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
			return nil
		}
	}()
	if err != nil {
		c.less()
		return nil, err
	}
	return &labConn{c: c, permit: p}, nil
}

func (c *labConnector) Connect(context.Context) (driver.Conn, error) { panic("not without a permit") }

func (c *labConnector) less() {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.open[c.tenant]--
	c.l.all--
}

// labConn notices when two use it at once.
type labConn struct {
	c      *labConnector
	permit Permit
	busy   sync.Mutex
	bad    bool
}

func (c *labConn) use() func() {
	if !c.busy.TryLock() {
		c.c.l.t.Errorf("a connection of %s is used by two at once", c.c.tenant)
		return func() {}
	}
	return c.busy.Unlock
}

func (c *labConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	defer c.use()()
	time.Sleep(time.Millisecond)
	return driver.RowsAffected(1), nil
}

func (c *labConn) Prepare(string) (driver.Stmt, error) { return labStmt{c}, nil }
func (c *labConn) Begin() (driver.Tx, error)           { return labTx{}, nil }
func (c *labConn) IsValid() bool                       { defer c.use()(); return !c.bad }
func (c *labConn) ResetSession(context.Context) error {
	defer c.use()()
	if c.bad {
		return driver.ErrBadConn
	}
	return nil
}

func (c *labConn) Close() error {
	defer c.use()()
	go func() {
		time.Sleep(time.Millisecond) // it takes a while until it is gone
		c.c.less()
		c.permit.Release()
		c.permit.Release()
	}()
	return nil
}

type labStmt struct{ c *labConn }

func (s labStmt) Close() error                             { defer s.c.use()(); return nil }
func (labStmt) NumInput() int                              { return -1 }
func (labStmt) Exec([]driver.Value) (driver.Result, error) { return driver.RowsAffected(1), nil }
func (labStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, errors.New("no rows") }

type labTx struct{}

func (labTx) Commit() error   { return nil }
func (labTx) Rollback() error { return nil }

func hold(t testing.TB, p *pool) *sql.Conn {
	t.Helper()
	c, err := p.db.Conn(context.Background())
	require.NoError(t, err)
	return c
}

func exec(p *pool) error {
	_, err := p.db.ExecContext(context.Background(), "x")
	return err
}

// later is db.Conn in a goroutine.
func later(ctx context.Context, p *pool) <-chan outcome {
	out := make(chan outcome, 1)
	go func() {
		c, err := p.db.Conn(ctx)
		out <- outcome{c, err}
	}()
	return out
}

type outcome struct {
	conn *sql.Conn
	err  error
}

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
		require.Equal(t, []TenantStats{{Tenant: "a", Server: "db1:5432", MaxConns: 1, Conns: 1, Waiting: 10, Waits: 10}}, []TenantStats{a.stats()})
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
		require.GreaterOrEqual(t, a.stats().WaitTime, 10*time.Second)
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
		require.EqualValues(t, 4, st.Exhausted)
		require.Zero(t, st.Waiting)
		require.NoError(t, other.Close())

		l.dial = func(ctx context.Context, tenant string) error { <-ctx.Done(); return ctx.Err() }
		require.Contains(t, fails(t.Context(), slow, 3*time.Second, ErrUnavailable), "still connecting to server db1:5432 after 3s")
		require.NoError(t, held.Close())
	})
}

// The dial of a caller who gives up is the next one's.
func TestAbandonedDialIsUsed(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		a := l.pool("a", 4)
		l.dial = func(context.Context, string) error { time.Sleep(time.Second); return nil }
		hasty := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
			defer cancel()
			_, err := a.db.ExecContext(ctx, "x")
			return err
		}
		for range 2 {
			err := hasty()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, ErrPoolExhausted)
		}
		require.NoError(t, hasty(), "the first one's has come")
		require.Equal(t, 1, l.dialled(), "nobody dialled beside it")

		// One that nobody fetches is closed in time.
		b := l.pool("b", 4)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.Error(t, b.db.PingContext(ctx))
		time.Sleep(2 * time.Second)
		require.Equal(t, 1, l.conns("b"))
		require.Equal(t, 1, b.stats().Idle)
		time.Sleep(l.limits.ConnMaxIdleTime)
		require.Zero(t, l.conns("b"))
	})
}

// A retired pool waits neither for a dial nor for a connection nobody fetched.
func TestRetireEndsDials(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		l.dial = func(ctx context.Context, tenant string) error {
			if tenant == "fetched by nobody" {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		for _, tenant := range []string{"hangs", "fetched by nobody"} {
			p := l.pool(tenant, 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
			defer cancel()
			require.Error(t, p.db.PingContext(ctx))
			time.Sleep(time.Second)
			require.Equal(t, 1, p.conns())
			began := time.Now()
			p.retire()
			<-p.gone()
			require.Less(t, time.Since(began), time.Second)
		}
	})
}

// The lifetime is that of the connection, not of its latest handle.
func TestLifetimeOfAHandedOverConnection(t *testing.T) {
	inLab(t, Limits{ConnMaxLifetime: time.Minute}, func(t *testing.T, l *lab) {
		a := l.pool("a", 1)
		held := hold(t, a)
		for range 15 {
			next := later(t.Context(), a)
			time.Sleep(5 * time.Second)
			require.NoError(t, held.Close())
			got := <-next
			require.NoError(t, got.err)
			held = got.conn
		}
		require.NoError(t, held.Close())
		require.NoError(t, exec(a))
		require.Equal(t, 2, l.dialled())
	})
}

// database/sql closes a statement whenever it likes, also while its connection
// is idle: one that was taken away is left alone then, and one with open
// statements does not change hands, since they would stay on it.
func TestStatementsOfAnIdleConnection(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 1}, func(t *testing.T, l *lab) {
		a, b := l.pool("a", 1), l.pool("b", 1)
		prepare := func() *sql.Stmt {
			stmt, err := a.db.PrepareContext(t.Context(), "x")
			require.NoError(t, err)
			return stmt
		}
		stmt := prepare()
		require.NoError(t, exec(b), "a's connection is closed for it")
		time.Sleep(quantum)
		_, err := stmt.ExecContext(t.Context())
		require.NoError(t, err, "it is prepared again")
		time.Sleep(quantum)
		require.NoError(t, exec(b))
		require.NoError(t, stmt.Close(), "on a connection that is another's now")

		time.Sleep(quantum)
		stmt = prepare()
		dials := l.dialled()
		c, err := a.db.Conn(t.Context())
		require.NoError(t, err)
		next := later(t.Context(), a)
		synctest.Wait()
		require.NoError(t, c.Close())
		got := <-next
		require.NoError(t, got.err)
		require.Equal(t, dials+1, l.dialled(), "not handed over")
		require.NoError(t, stmt.Close())
		require.NoError(t, got.conn.Close())

		// Closed while it is idle and wanted: it is in use for as long.
		stmt = prepare()
		require.NoError(t, stmt.Close())
		require.NoError(t, exec(a))
		require.Equal(t, dials+1, l.dialled())
	})
}

func TestDeadIdleConnectionIsReplaced(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		a := l.pool("a", 2)
		one, two := hold(t, a), hold(t, a)
		for _, c := range []*sql.Conn{one, two} {
			require.NoError(t, c.Raw(func(c any) error {
				c.(interface{ Unwrap() driver.Conn }).Unwrap().(*labConn).bad = true
				return nil
			}))
		}
		waiting := later(t.Context(), a)
		synctest.Wait()
		require.NoError(t, one.Close())
		got := <-waiting
		require.NoError(t, got.err)
		require.NoError(t, got.conn.Close())
		require.NoError(t, two.Close())
		require.Equal(t, 3, l.dialled())
	})
}

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
		require.True(t, a.dialer.server.stats().Down)
		dials := l.dialled()
		began := time.Now()
		b := l.pool("b", 1) // a fresh pool does not start from scratch
		for range 100 {
			err := exec(b)
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, err, errLabDown)
			require.ErrorContains(t, err, "server db1:5432 could not be reached 5 times in a row")
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

// A panic in a Connector is that tenant's failure.
func TestConnectorPanics(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		l.dial = func(context.Context, string) error { panic("ouch") }
		err := exec(l.pool("a", 1))
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorContains(t, err, "ouch")
		l.less("a")
	})
}

func (l *lab) less(tenant string) { (&labConnector{l, tenant}).less() }

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
		stop := make(chan struct{})
		done := make(chan struct{})
		for range 8 {
			go func() {
				defer func() { done <- struct{}{} }()
				for {
					select {
					case <-stop:
						return
					default:
						_ = exec(bad)
						time.Sleep(5 * time.Millisecond)
					}
				}
			}()
		}
		time.Sleep(1500 * time.Millisecond)
		failed := 0
		for i := range 20 {
			if err := exec(l.pool(fmt.Sprint(i), 1)); err != nil {
				failed++
			}
			time.Sleep(time.Second)
		}
		close(stop)
		for range 8 {
			<-done
		}
		require.Zero(t, failed, "of 20 healthy tenants; the breaker tripped %d times", bad.dialer.server.count.tripped)
	})
}

// After a restart of the server every idle connection is dead, and only using
// it tells. database/sql's third try is with a new connection.
func TestThirdTryIsANewConnection(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		stale := &staleConnector{}
		p := newPool("a", stale, labEngine{}, l.join("s"), Database{MaxConns: 4}, l.limits)
		defer func() { p.retire(); <-p.gone() }()
		var held []*sql.Conn
		for range 4 {
			held = append(held, hold(t, p))
		}
		for _, c := range held {
			require.NoError(t, c.Close())
		}
		stale.restarted = true
		_, err := p.db.ExecContext(t.Context(), "x")
		require.NoError(t, err)
	})
}

type staleConnector struct{ restarted bool }

func (c *staleConnector) Driver() driver.Driver { return nil }
func (c *staleConnector) Connect(context.Context) (driver.Conn, error) {
	return &staleConn{c: c, fresh: c.restarted}, nil
}

type staleConn struct {
	c     *staleConnector
	fresh bool
}

func (c *staleConn) Ping(context.Context) error {
	if c.c.restarted && !c.fresh {
		return driver.ErrBadConn
	}
	return nil
}
func (c *staleConn) ExecContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.Ping(ctx)
}
func (c *staleConn) Prepare(string) (driver.Stmt, error) { return nil, errors.New("no") }
func (c *staleConn) Begin() (driver.Tx, error)           { return labTx{}, nil }
func (c *staleConn) Close() error                        { return nil }

// The tenant's only idle connection has an open statement, and database/sql would
// use it but for two dead handles above it.
func TestOwnIdleConnectionWithAStatementMakesRoom(t *testing.T) {
	inLab(t, Limits{MaxConnsPerServer: 3}, func(t *testing.T, l *lab) {
		a, b := l.pool("a", 3), l.pool("b", 3)
		one, two, three := hold(t, a), hold(t, a), hold(t, a)
		stmt, err := one.PrepareContext(t.Context(), "x")
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NoError(t, one.Close()) // the statement stays open
		require.NoError(t, two.Close())
		require.NoError(t, three.Close())
		b1, b2 := hold(t, b), hold(t, b)
		require.NoError(t, exec(a))
		require.NoError(t, b1.Close())
		require.NoError(t, b2.Close())
		require.NoError(t, stmt.Close())
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

// A driver without Validator and SessionResetter: database/sql throws away the
// connection of a transaction whose ctx ended.
func TestCancelledTxOfASimpleDriver(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		simple := &simpleConnector{}
		p := newPool("a", simple, labEngine{}, l.join("s"), Database{MaxConns: 4}, l.limits)
		defer func() { p.retire(); <-p.gone() }()
		stock := sql.OpenDB(simple)
		defer stock.Close()
		for i, db := range []*sql.DB{stock, p.db} {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			cancel()
			synctest.Wait()
			_, err = db.ExecContext(t.Context(), "x")
			require.NoError(t, err)
			require.False(t, simple.last.open, "%d: a statement ran in a transaction that was left open", i)
		}
	})
}

type simpleConnector struct{ last *simpleConn }

func (c *simpleConnector) Driver() driver.Driver { return nil }
func (c *simpleConnector) Connect(context.Context) (driver.Conn, error) {
	c.last = &simpleConn{}
	return c.last, nil
}

type simpleConn struct{ open bool }

func (c *simpleConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}
func (c *simpleConn) Prepare(string) (driver.Stmt, error) { return nil, errors.New("no") }
func (c *simpleConn) Begin() (driver.Tx, error)           { c.open = true; return c, nil }
func (c *simpleConn) Commit() error                       { c.open = false; return nil }
func (c *simpleConn) Rollback() error                     { return errors.New("interrupted") }
func (c *simpleConn) Close() error                        { return nil }

// A caller comes between handle.idle and server.share of a connection, gives it
// to who came before, and is itself refused.
func TestRefusedAfterDelivering(t *testing.T) {
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
