package enginetest

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// connectEnds: a connect under a ctx that has ended makes no connection.
func (s *suite) connectEnds() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	conn, err := s.connect(ctx, s.connector(s.place(s.database())))
	if err == nil {
		_ = conn.Close()
		s.Fatalf("Connect under a ctx that has ended: no error")
	}
	s.is("Connect under a ctx that has ended", err, tenancy.FaultCaller)
}

// connectEndsInSilence: a server that accepts and then says nothing holds
// nobody for longer than ctx, and nothing is left behind.
func (s *suite) connectEndsInSilence() {
	l := s.listen()
	c := s.connector(s.nowhere(l.addr))
	try := func(ctx context.Context, end func(), want ...tenancy.Fault) {
		s.Helper()
		var conn driver.Conn
		var err error
		done := make(chan struct{})
		go func() { defer close(done); conn, err = c.Connect(ctx) }()
		s.happens("a dial is accepted", l.dials)
		end()
		s.happens("Connect returns after its ctx has ended", done)
		if err == nil {
			_ = conn.Close()
			s.Fatalf("Connect to a server that says nothing: no error")
		}
		s.noSecret("Connect to a server that says nothing", err)
		s.is("Connect to a server that says nothing", err, want...)
		s.happens("the socket of a connect that failed is closed", l.gone)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	try(ctx, cancel, tenancy.FaultCaller)
	// Whose deadline it was, an engine can't always tell.
	late, cancelLate := context.WithTimeout(context.Background(), time.Second/2)
	defer cancelLate()
	try(late, func() {}, tenancy.FaultServer, tenancy.FaultCaller)
}

// statementEnds: a statement ends with its ctx, and is the caller's fault; the
// pool goes on as if nothing had been.
func (s *suite) statementEnds() {
	name := s.database()
	db := s.pool(s.connector(s.place(name)))
	db.SetMaxOpenConns(1)
	for range 3 {
		s.must(db.Ping()) // the deadline is the statement's alone
		ctx, cancel := context.WithTimeout(context.Background(), time.Second/10)
		var err error
		s.ends("a statement whose ctx has ended", func() { _, err = db.ExecContext(ctx, s.Endless) })
		cancel()
		if err == nil {
			s.Fatalf("a statement whose ctx has ended: no error; does Endless run for a minute?")
		}
		s.is("a statement whose ctx has ended", err, tenancy.FaultCaller)

		var owner string
		s.ends("the next statement", func() {
			ctx, cancel := s.bounded()
			defer cancel()
			err = db.QueryRowContext(ctx, "SELECT owner FROM "+items+" WHERE id = 1").Scan(&owner)
		})
		if err != nil || owner != name {
			s.Errorf("the next statement: %q, %v", owner, err)
		}
	}
	if err := db.Close(); err != nil {
		s.Errorf("closing the connections: %v", err)
	}
}

// killedSession: a session that the server ended is no tenant's fault, and the
// pool gets over it.
func (s *suite) killedSession() {
	name := s.database()
	db := s.pool(s.connector(s.place(name)))
	ctx, cancel := s.bounded()
	defer cancel()
	conn, err := db.Conn(ctx)
	s.must(err)
	s.must(conn.PingContext(ctx))
	s.Kill(s.TB, name)
	var owner string
	query := "SELECT owner FROM " + items + " WHERE id = 1"
	err = conn.QueryRowContext(ctx, query).Scan(&owner)
	if err == nil {
		s.Errorf("a statement on a session that was killed: no error; does Kill end it?")
	} else {
		s.is("a session that was killed", err, tenancy.FaultServer, tenancy.FaultNone)
	}
	_ = conn.Close() // reports the dead session again
	if err := db.QueryRowContext(ctx, query).Scan(&owner); err != nil || owner != name {
		s.Errorf("the statement after that: %q, %v; database/sql must learn that the connection is dead (driver.ErrBadConn, driver.Validator)", owner, err)
	}
}
