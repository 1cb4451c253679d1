package tenancy

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

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
		require.Equal(t, 1, b.dialer.stats().Idle)
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

func (c *staleConn) Close() error { return nil }

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

func (c *simpleConn) Commit() error   { c.open = false; return nil }
func (c *simpleConn) Rollback() error { return errors.New("interrupted") }

func (c *simpleConn) Close() error { return nil }
