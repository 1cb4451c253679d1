package tenancy

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
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
	exec   func(ctx context.Context, tenant string) error // what a statement gives, if set
	hangUp chan struct{}                                  // if set, closed connections are gone when it is closed

	mu     sync.Mutex
	pools  []*pool
	open   map[string]int // connections by tenant, from before the dial
	all    int
	peak   int
	dials  int
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
	errLabWrites  = errors.New("it can't be written to")
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

func (labEngine) ReplicaConnector(string) (driver.Connector, error) { panic("the lab has no DSNs") }
func (labEngine) ReplicaRefused(err error) bool                     { return errors.Is(err, errLabWrites) }

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

func (c *labConn) ExecContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Result, error) {
	defer c.use()()
	time.Sleep(time.Millisecond)
	if exec := c.c.l.exec; exec != nil {
		if err := exec(ctx, c.c.tenant); err != nil {
			return nil, err
		}
	}
	return driver.RowsAffected(1), nil
}

func (c *labConn) Prepare(string) (driver.Stmt, error) { return labStmt{c}, nil }
func (c *labConn) Begin() (driver.Tx, error)           { return labTx{}, nil }

func (c *labConn) IsValid() bool { defer c.use()(); return !c.bad }
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
		if c.c.l.hangUp != nil {
			<-c.c.l.hangUp
		}
		c.c.less()
		c.permit.Release()
		c.permit.Release()
	}()
	return nil
}

type labStmt struct{ c *labConn }

func (s labStmt) Close() error { defer s.c.use()(); return nil }
func (labStmt) NumInput() int  { return -1 }

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

func (l *lab) less(tenant string) { (&labConnector{l, tenant}).less() }

// callers lets n goroutines call do, each again after a pause, until stop, which
// waits for them.
func callers(n int, pause time.Duration, do func()) (stop func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(pause):
					do()
				}
			}
		})
	}
	return func() {
		close(done)
		all.Wait()
	}
}
