package enginetest

import (
	"context"
	"database/sql"
	"errors"
	"net"

	"github.com/gorm-tenancy/tenancy"
)

// classifyCaller: what says nothing of a connection, and what the caller did.
func (s *suite) classifyCaller() {
	if got := s.Engine.Classify(nil); got != tenancy.FaultNone {
		s.Errorf("no error: Classify says %s, want none", got)
	}
	s.is("any error", errors.New("any error"), tenancy.FaultNone)
	s.is("no rows", sql.ErrNoRows, tenancy.FaultNone)
	s.is("context.Canceled", context.Canceled, tenancy.FaultCaller)
	s.is("context.DeadlineExceeded", context.DeadlineExceeded, tenancy.FaultCaller)
	s.is("another tenant's database", tenancy.ErrWrongDatabase, tenancy.FaultNone, tenancy.FaultTenant)
}

// classifyStatements: a statement that fails is no sign that anything is down.
func (s *suite) classifyStatements() {
	name := s.database()
	db := s.pool(s.connector(s.place(name)))
	ctx, cancel := s.bounded()
	defer cancel()
	for what, statement := range map[string]string{
		"a syntax error":            "SELEC 1",
		"a table that is not there": "SELECT * FROM enginetest_nowhere",
		"a unique violation":        "INSERT INTO " + items + " (id, owner) VALUES (1, 'x')",
	} {
		_, err := db.ExecContext(ctx, statement)
		if err == nil {
			s.Errorf("%s is no error", what)
			continue
		}
		s.is(what, err, tenancy.FaultNone)
	}
	var n int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+items).Scan(&n); err != nil || n != 1 {
		s.Errorf("after statements that failed: %d rows, %v", n, err)
	}
}

// classifyMissing: one database that is not there is one tenant's fault. Taken
// for the server's, it would end the service of all.
func (s *suite) classifyMissing() {
	p := s.nowhere(s.Address)
	p.Password = s.Password
	err := s.refuses("a database that is not there", s.connector(p))
	s.is("a database that is not there", err, tenancy.FaultTenant)
	if s.Password != "" && shows(err, s.Password) {
		s.Errorf("a database that is not there: the error shows the DSN's password: a %T", err)
	}
}

// classifyPassword: so is one that refuses its login.
func (s *suite) classifyPassword() {
	p := s.place(s.database())
	p.Password = Secret
	s.is("a wrong password", s.refuses("a wrong password", s.connector(p)), tenancy.FaultTenant)
}

// classifyUnreachable: a server that nobody can connect to.
func (s *suite) classifyUnreachable() {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	closed := tcp.Addr().String()
	s.must(tcp.Close())
	for what, addr := range map[string]string{
		"a port that nobody listens on": closed,
		"a server that hangs up":        s.listening(true).addr,
	} {
		s.is(what, s.refuses(what, s.connector(s.nowhere(addr))), tenancy.FaultServer)
	}
}

// classifyFull: a server without a free connection lives, and is tried again.
func (s *suite) classifyFull() {
	c, err := s.Engine.Connector(s.Full(s.TB))
	s.must(err)
	s.is("a server that is full", s.refuses("a server that is full", c), tenancy.FaultSaturation)
}
