package tenancy

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A server that is full must not look like one that is down, also where the
// connect's own deadline comes before the patience with a full server.
func TestReviewSaturationWithAShortConnectTimeout(t *testing.T) {
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
func TestReviewOneTenantsHangIsNotTheServers(t *testing.T) {
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
func TestReviewThirdTryIsANewConnection(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		db := l.pool("a", 4)
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
		_ = db
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

// The tenant has an idle connection, which database/sql would use but for two
// dead handles above it.
func TestReviewIdleConnectionWithAStatementUnderHusks(t *testing.T) {
	t.Skip("not solved: handle.take leaves a connection with open statements alone")
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
		began := time.Now()
		err = exec(a)
		t.Log(time.Since(began))
		_ = b1.Close()
		_ = b2.Close()
		_ = stmt.Close()
		require.NoError(t, err)
	})
}

// A connection that takes long to close does not keep the waiter from another
// that is idle.
func TestReviewSlowCloseOfAReclaimedConnection(t *testing.T) {
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
func TestReviewCancelledTxOfASimpleDriver(t *testing.T) {
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
