package sandbox

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// errEnded is what a statement gets that comes after its turn.
var errEnded = errors.New("sandbox: the test has ended, and what it did is rolled back: let it wait for the goroutines that it has started")

// LeakError says that a transaction was still open at the end of a test.
type LeakError struct {
	Conn  int    // number of the virtual connection
	Stack string // where the transaction began
}

// Error tells where the transaction began.
func (e *LeakError) Error() string {
	return fmt.Sprintf("sandbox: connection %d had a transaction open at the test's end; commit it or roll it back. It began at:\n%s", e.Conn, e.Stack)
}

// The one savepoint of the sandbox: what the next commit or rollback is about.
const (
	savepoint  = "SAVEPOINT _tenancy_sandbox"
	rollbackTo = "ROLLBACK TO _tenancy_sandbox"
	// next keeps what was done so far.
	next = "RELEASE _tenancy_sandbox; " + savepoint
)

// turn is the time from Begin to End, in one outer transaction.
//
// A virtual connection first becomes the queue's holder, for a statement or a
// transaction, and then takes busy for each use of the link.
type turn struct {
	link *link
	wait time.Duration
	// ended ends with the turn, or when the sandbox is lost; its cause says
	// why, and is what statements get from then on.
	ended context.Context
	gone  context.CancelCauseFunc
	queue queue
	busy  chan struct{} // holds one element while the link is used; for good after finish

	// Guarded by busy.
	check string // what a commit has to run; "" for nothing
	ddl   bool   // a statement may have changed the schema

	mu     sync.Mutex // guards the rest
	conns  int
	stmts  map[*stmt]struct{} // that are open
	closed []*stmt            // to be closed when the link is next used
}

func newTurn(ctx context.Context, l *link, wait time.Duration) (*turn, error) {
	if err := l.exec(ctx, "BEGIN; "+savepoint); err != nil {
		return nil, err
	}
	t := &turn{link: l, wait: wait, busy: make(chan struct{}, 1), stmts: map[*stmt]struct{}{}}
	if err := t.loadCheck(ctx); err != nil {
		return nil, err
	}
	t.ended, t.gone = context.WithCancelCause(context.Background())
	return t, nil
}

// loadCheck asks which constraints a commit has to check, and which modes they
// must have after that: by default SET CONSTRAINTS holds until the end of the
// outer transaction. It names constraints by schema and name only, which tables may
// share; where some of one name are initially deferred and others not, all stay
// immediate.
func (t *turn) loadCheck(ctx context.Context) error {
	const query = `SELECT format('%I.%I', n.nspname, c.conname), bool_and(c.condeferred)
		FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
		WHERE NOT pg_is_other_temp_schema(n.oid)
		GROUP BY 1 HAVING bool_or(c.condeferrable)`
	results, err := t.link.pgx.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return err
	}
	var deferred []string
	for _, row := range results[0].Rows {
		if string(row[1]) == "t" {
			deferred = append(deferred, string(row[0]))
		}
	}
	t.check = ""
	if len(results[0].Rows) > 0 {
		t.check = "SET CONSTRAINTS ALL IMMEDIATE"
	}
	if len(deferred) > 0 {
		t.check += "; SET CONSTRAINTS " + strings.Join(deferred, ", ") + " DEFERRED"
	}
	return nil
}

// saw notes what a query may change besides rows.
func (t *turn) saw(query string) { t.ddl = t.ddl || ddl.MatchString(query) }

// err says why nothing works any more; nil if all is well.
func (t *turn) err() error { return context.Cause(t.ended) }

// lost ends the turn because of err, which what met, and returns what statements get
// from now on.
func (t *turn) lost(what string, err error) error {
	if err == nil {
		err = errors.New("it was closed")
	}
	// Not with %w: database/sql would try again after driver.ErrBadConn.
	t.gone(fmt.Errorf("sandbox: the connection was lost in %s, and with it all that the test did: %v", what, err))
	return t.err()
}

// use takes the link, and forgets statements that were closed meanwhile.
func (t *turn) use() error {
	select {
	case <-t.ended.Done():
		return t.err()
	case t.busy <- struct{}{}:
	}
	if err := t.err(); err != nil {
		t.unuse()
		return err
	}
	t.mu.Lock()
	closed := t.closed
	t.closed = nil
	t.mu.Unlock()
	for _, s := range closed {
		if err := s.Stmt.Close(); err != nil {
			t.unuse()
			return t.lost("closing a prepared statement", err)
		}
	}
	return nil
}

func (t *turn) unuse() { <-t.busy }

// begin begins what a commit or rollback is about next.
func (t *turn) begin(readOnly bool) error {
	sql := next
	if readOnly {
		sql += "; SET TRANSACTION READ ONLY" // until the savepoint's end (xact.c, CommitSubTransaction)
	}
	if err := t.link.control(sql); err != nil {
		return t.lost("beginning", err)
	}
	return nil
}

// commit does what PostgreSQL does at COMMIT. After an error all is rolled
// back. The savepoint stays until the next begin.
func (t *turn) commit() error {
	if t.ddl {
		ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
		defer cancel()
		if err := t.loadCheck(ctx); err != nil {
			return t.lost("a commit", err)
		}
	}
	if t.check == "" {
		return nil
	}
	failed := t.link.control(t.check)
	if failed == nil {
		return nil
	}
	if sqlerr.State(failed) == "" {
		return t.lost("a commit", failed)
	}
	if err := t.rollback(); err != nil {
		return err
	}
	return failed
}

func (t *turn) rollback() error {
	if err := t.link.control(rollbackTo); err != nil {
		return t.lost("a rollback", err)
	}
	return nil
}

// settled looks at what a use of the link has left. what describes it, and err
// is its error; another one is returned if the sandbox is lost.
func (t *turn) settled(what string, err error) error {
	if t.link.pgx.IsClosed() || errors.Is(err, driver.ErrBadConn) {
		return t.lost(what, err)
	}
	if t.link.state() == 'I' {
		t.gone(errOutside(what))
		return t.err()
	}
	return err
}

func errOutside(what string) error {
	return fmt.Errorf("sandbox: %s has ended the sandbox's own transaction, perhaps with a COMMIT: what the test did may be in the database for good. "+
		"Give the test a database of its own (Env.Clone instead of Env.Tenant)", what)
}

// stop ends all use of the link, and takes it for good.
func (t *turn) stop(ctx context.Context) error {
	t.gone(errEnded) // cancels what is running
	limit := time.NewTimer(2 * cancelGrace)
	defer limit.Stop()
	err := errors.New("sandbox: it does not end, or its sql.Conn was not closed")
	select {
	case t.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
	}
	return fmt.Errorf("sandbox: the connection is still in use at the test's end: %w: %v", err, t.queue.held())
}

// finish ends the turn. If the link is not to be used again, it is closed.
func (t *turn) finish(ctx context.Context) error {
	lost := t.err()
	open := t.queue.held()
	if err := t.stop(ctx); err != nil {
		t.link.sever()
		return err
	}
	if err := t.reset(ctx, lost); err != nil {
		_ = t.link.conn.Close()
		return err
	}
	// A transaction whose ctx has ended is not forgotten: database/sql is about
	// to roll it back.
	if open != nil && open.tx != nil && open.tx.Err() == nil {
		return &LeakError{Conn: open.conn, Stack: open.stack()}
	}
	return nil
}

// reset rolls back, if lost is nil and the link is good.
func (t *turn) reset(ctx context.Context, lost error) error {
	switch {
	case lost != nil:
		return lost
	case t.link.pgx.IsClosed():
		return errors.New("sandbox: the connection was lost at the test's end")
	case t.link.state() == 'I':
		return errOutside("a statement at the test's end")
	}
	// Session-level advisory locks are not part of the transaction.
	if err := t.link.exec(ctx, "ROLLBACK; SELECT pg_advisory_unlock_all()"); err != nil {
		return fmt.Errorf("sandbox: rolling back: %w", err)
	}
	// Prepared statements aren't either.
	t.mu.Lock()
	stmts := slices.AppendSeq(t.closed, maps.Keys(t.stmts))
	t.mu.Unlock()
	for _, s := range stmts {
		if err := s.Stmt.Close(); err != nil {
			return fmt.Errorf("sandbox: closing a prepared statement: %w", err)
		}
	}
	if t.ddl { // those that pgx keeps may mean a schema that is gone
		if err := t.link.pgx.DeallocateAll(ctx); err != nil {
			return fmt.Errorf("sandbox: deallocating: %w", err)
		}
	}
	return nil
}
