// Package sandbox lets many tests use one PostgreSQL database, one after the
// other: a test's turn is one transaction, which is rolled back at its end. It
// works at the driver's level, so the code under test has its own *sql.DB and
// its own transactions, and sees what it sees in production:
//
//   - All connections of a [Sandbox] are virtual. They share one physical
//     connection, and take turns on it: one holds it for a statement, or from
//     the beginning of its transaction to the end.
//   - A transaction, and a statement outside of one, is a savepoint. A
//     statement that fails is undone, and the next one goes on. Inside of a
//     transaction the server says 25P02 until it is rolled back, or rolled back
//     to a savepoint of its own.
//   - At a commit the server checks the deferred constraints, and takes their
//     modes back to what the schema says.
//   - Rows are read into memory at once, so that another connection's statement
//     can run while they are open. Their own one is busy until they are read to
//     the end or closed, as pgx's is: its statements fail with driver.ErrBadConn.
//   - When the ctx of a statement ends, the statement is cancelled at the
//     server. pgx would close the connection; here it stays.
//
// # What is not as in production
//
//   - Statements and transactions never overlap: code that opens a second
//     connection inside of a transaction waits for itself, and gets an error
//     after [Sandbox.Wait].
//   - Isolation levels are accepted and ignored.
//   - All connections are one session: what one has SET holds for all, they see
//     each other's temporary tables, and no lock of one, of a row or an
//     advisory one, ever keeps another one out.
//   - now() stands still. What was set with SET LOCAL, transaction-level
//     advisory locks, cursors and temporary tables ON COMMIT outlive a commit,
//     and last until the test's end.
//   - A notification is never delivered, and whatever can't run inside of a
//     transaction block fails: CREATE INDEX CONCURRENTLY, VACUUM, CREATE
//     DATABASE.
//   - BEGIN, COMMIT and ROLLBACK in SQL text are refused. Where they come after
//     another statement in one string, or by way of the pgx connection, they
//     end the sandbox: statements fail from then on, and so does [Sandbox.End].
//   - A savepoint can be made outside of a transaction, and LOCK TABLE used.
//   - Sequences are not rolled back.
//   - From Go 1.27 on, pgx can scan arrays and other types of PostgreSQL by
//     itself (driver.RowsColumnScanner); rows of a sandbox can't.
package sandbox

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"time"
)

// DefaultWait is what [Sandbox.Wait] is when it is not set.
const DefaultWait = 5 * time.Second

// Sandbox is one database with one physical connection. Begin, End and Close
// may be called from any goroutine, and at any time.
type Sandbox struct {
	// Wait bounds how long a virtual connection waits for another one to end
	// its transaction or statement. The error names the other one. It is read
	// by Begin. Defaults to [DefaultWait].
	Wait time.Duration

	inner driver.Connector

	mu   sync.Mutex // guards the rest
	turn *turn      // nil when none has begun
	link *link      // nil when not connected
}

// New returns a sandbox in the database that inner connects to, with pgx.
// Nothing is dialled.
func New(inner driver.Connector) *Sandbox { return &Sandbox{inner: inner} }

// Connector returns what opens virtual connections in the turn that has begun.
// They end with it: ask for another one after the next Begin.
func (s *Sandbox) Connector() driver.Connector {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &connector{turn: s.turn, driver: s.inner.Driver()}
}

// Begin begins a turn. It dials if there is no connection, or none that works.
func (s *Sandbox) Begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn != nil {
		return errors.New("sandbox: a test's turn has begun already; call End first")
	}
	wait := s.Wait
	if wait <= 0 {
		wait = DefaultWait
	}
	if s.link != nil {
		t, err := newTurn(ctx, s.link, wait)
		if err == nil {
			s.turn = t
			return nil
		}
		_ = s.link.conn.Close() // it may have died of old age; try a new one
		s.link = nil
	}
	l, err := dial(ctx, s.inner)
	if err != nil {
		return fmt.Errorf("sandbox: connecting: %w", err)
	}
	if s.turn, err = newTurn(ctx, l, wait); err != nil {
		_ = l.conn.Close()
		return fmt.Errorf("sandbox: beginning: %w", err)
	}
	s.link = l
	return nil
}

// End ends the turn: statements that still run are cancelled, and all that was
// done is rolled back. Virtual connections fail from then on. The physical one
// stays for the next Begin.
//
// If a transaction was still open, all is rolled back too, and the error is a
// [LeakError]. After any other error the database may not be clean any more, or
// a statement may still be running: it should not be used again.
func (s *Sandbox) End(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.turn
	if t == nil {
		return nil
	}
	s.turn = nil
	err := t.finish(ctx)
	var leak *LeakError
	if err != nil && !errors.As(err, &leak) {
		s.link = nil // finish has closed it
	}
	return err
}

// Close closes the physical connection, and ends a turn that has not ended: the
// server rolls it back. After Begin the sandbox can be used again.
func (s *Sandbox) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.turn; t != nil {
		s.turn = nil
		if err := t.stop(context.Background()); err != nil {
			s.link.sever()
			s.link = nil
			return err
		}
	}
	if s.link == nil {
		return nil
	}
	l := s.link
	s.link = nil
	return l.conn.Close()
}
