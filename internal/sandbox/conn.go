package sandbox

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

var (
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
)

// connector opens the virtual connections of one turn.
type connector struct {
	turn   *turn // nil when none had begun
	driver driver.Driver
}

// Connect dials nothing, and does not wait.
func (c *connector) Connect(context.Context) (driver.Conn, error) {
	if c.turn == nil {
		return nil, errors.New("sandbox: this connector was made before the test's turn began; call Begin, then Connector")
	}
	t := c.turn
	if err := t.err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns++
	return &conn{turn: t, number: t.conns}, nil
}

func (c *connector) Driver() driver.Driver { return c.driver }

// conn is a virtual connection. As with any driver's, database/sql uses it from
// one goroutine at a time.
type conn struct {
	turn   *turn
	number int
	tx     *tx   // the transaction it is in: it is the queue's holder then
	open   *rows // that are not read to the end, nor closed
	raw    bool  // pgx's connection was handed out: it holds busy, and outside of a transaction is the queue's holder
}

// do runs fn on the physical connection, as a statement of its own or in the
// transaction. what describes it.
func (c *conn) do(ctx context.Context, what string, fn func(context.Context, innerConn) error) (err error) {
	if c.open != nil {
		return fmt.Errorf("sandbox: %s can't run, the connection has rows open (PostgreSQL's would be busy too): "+
			"read them to the end or close them first: %w", what, driver.ErrBadConn)
	}
	if err := c.enter(ctx, what); err != nil {
		return err
	}
	defer func() { err = c.leave(err) }()
	t := c.turn
	inner, done := t.link.cancellable(ctx, t.ended)
	err = fn(inner, t.link.conn)
	done()
	if err != nil {
		switch {
		case t.err() != nil:
			err = t.err()
		case ctx.Err() != nil:
			err = fmt.Errorf("sandbox: %s was cancelled: %w", what, ctx.Err())
		}
	}
	return t.settled(what, err)
}

// enter waits for the physical connection. Who gets no error has to call leave.
func (c *conn) enter(ctx context.Context, what string) error {
	c.endRaw()
	if err := ctx.Err(); err != nil {
		return err
	}
	t := c.turn
	if err := t.err(); err != nil {
		return err
	}
	if c.tx == nil {
		if err := t.queue.acquire(ctx, t.ended, newHolder(c.number, what, nil), t.wait); err != nil {
			return err
		}
	}
	err := t.use()
	if err == nil && c.tx == nil {
		if err = t.begin(false); err != nil {
			t.unuse()
		}
	}
	if err != nil && c.tx == nil {
		t.queue.release()
	}
	return err
}

// leave ends what enter has begun. Outside of a transaction it commits, or rolls
// back if the server says that the statement has failed: an error of the client's own,
// about a value that it can't convert for instance, undoes nothing in
// production either.
func (c *conn) leave(err error) error {
	t := c.turn
	if c.tx == nil {
		defer t.queue.release()
	}
	defer t.unuse()
	if c.tx != nil || t.err() != nil {
		return err
	}
	end := t.commit
	if t.link.state() == 'E' {
		end = t.rollback
	}
	if failed := end(); failed != nil {
		return failed
	}
	return err
}

// ExecContext runs a statement.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (res driver.Result, err error) {
	if err := refuse(query); err != nil {
		return nil, err
	}
	err = c.do(ctx, quote(query), func(ctx context.Context, conn innerConn) (err error) {
		c.turn.saw(query)
		res, err = conn.ExecContext(ctx, query, args)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// QueryContext runs a statement, and reads all of its rows.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := refuse(query); err != nil {
		return nil, err
	}
	return c.query(ctx, query, func(ctx context.Context, conn innerConn) (driver.Rows, error) {
		return conn.QueryContext(ctx, query, args)
	})
}

func (c *conn) query(ctx context.Context, query string, run func(context.Context, innerConn) (driver.Rows, error)) (driver.Rows, error) {
	var r *rows
	err := c.do(ctx, quote(query), func(ctx context.Context, conn innerConn) error {
		c.turn.saw(query)
		inner, err := run(ctx, conn)
		if err != nil {
			return err
		}
		r, err = read(inner)
		return err
	})
	if r == nil {
		return nil, err
	}
	r.err = err // after the rows that came before it
	r.conn, c.open = c, r
	return r, nil
}

// PrepareContext prepares a statement on the physical connection.
func (c *conn) PrepareContext(ctx context.Context, query string) (s driver.Stmt, err error) {
	if err := refuse(query); err != nil {
		return nil, err
	}
	err = c.do(ctx, quote(query), func(ctx context.Context, conn innerConn) error {
		inner, err := conn.PrepareContext(ctx, query)
		if err == nil {
			s = c.newStmt(inner, query)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Prepare is there for [driver.Conn]; database/sql does not call it.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// Begin is there for [driver.Conn]; database/sql does not call it.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx waits until no other connection has a transaction.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	switch sql.IsolationLevel(opts.Isolation) {
	case sql.LevelDefault, sql.LevelReadUncommitted, sql.LevelReadCommitted,
		sql.LevelRepeatableRead, sql.LevelSnapshot, sql.LevelSerializable:
	default: // pgx refuses these too
		return nil, fmt.Errorf("unsupported isolation: %v", opts.Isolation)
	}
	c.endRaw()
	if c.tx != nil {
		return nil, errors.New("sandbox: the connection is in a transaction already")
	}
	t := c.turn
	if err := t.err(); err != nil {
		return nil, err
	}
	if err := t.queue.acquire(ctx, t.ended, newHolder(c.number, "a transaction", ctx), t.wait); err != nil {
		return nil, err
	}
	err := t.use()
	if err == nil {
		err = t.begin(opts.ReadOnly)
		t.unuse()
	}
	if err != nil {
		t.queue.release()
		return nil, err
	}
	c.tx = &tx{c}
	return c.tx, nil
}

// Ping asks nobody: another connection may have a transaction.
func (c *conn) Ping(context.Context) error { return c.turn.err() }

// ResetSession lets a connection be used again. One whose turn has ended says so
// with the next statement.
func (c *conn) ResetSession(context.Context) error {
	c.endRaw()
	return nil
}

// IsValid is asked when the connection goes back to its pool.
func (c *conn) IsValid() bool {
	c.endRaw()
	return c.tx == nil && c.turn.err() == nil
}

// CheckNamedValue asks pgx's connection, which looks at the value alone.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.turn.link.conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// Close rolls an open transaction back.
func (c *conn) Close() error {
	c.endRaw()
	if c.tx != nil {
		return c.end(c.turn.rollback)
	}
	return nil
}

// end ends the transaction by how.
func (c *conn) end(how func() error) error {
	c.endRaw()
	c.tx = nil
	t := c.turn
	defer t.queue.release()
	if err := t.use(); err != nil {
		return err
	}
	defer t.unuse()
	return how()
}

// Unwrap returns the physical connection, and keeps it for this one until it is
// used in another way or goes back to its pool, as when the sql.Conn of a
// (*sql.Conn).Raw is closed. It returns nil when another one does not let go of it.
func (c *conn) Unwrap() driver.Conn {
	if c.raw {
		return c.turn.link.conn
	}
	if err := c.enter(context.Background(), "a raw connection"); err != nil {
		return nil
	}
	c.raw = true
	c.turn.ddl = true // who knows
	return c.turn.link.conn
}

// endRaw ends what Unwrap has begun. It can't return an error.
func (c *conn) endRaw() {
	if !c.raw {
		return
	}
	c.raw = false
	err := c.turn.settled("a raw connection", nil)
	if err := c.leave(err); err != nil {
		c.turn.gone(fmt.Errorf("sandbox: after the use of a raw connection: %w", err))
	}
}

// tx is a transaction of a virtual connection.
type tx struct{ conn *conn }

// Commit keeps what the transaction did for the rest of the turn.
func (x *tx) Commit() error {
	if x.conn.tx != x {
		return sql.ErrTxDone
	}
	t := x.conn.turn
	return x.conn.end(func() error {
		if t.link.state() != 'E' {
			return t.commit()
		}
		if err := t.rollback(); err != nil {
			return err
		}
		return pgx.ErrTxCommitRollback // as pgx says where the server answers COMMIT with ROLLBACK
	})
}

// Rollback undoes it.
func (x *tx) Rollback() error {
	if x.conn.tx != x {
		return sql.ErrTxDone
	}
	return x.conn.end(x.conn.turn.rollback)
}

// quote shortens a query for an error.
func quote(query string) string {
	const most = 200
	if r := []rune(query); len(r) > most {
		query = string(r[:most]) + "..."
	}
	return fmt.Sprintf("%q", query)
}
