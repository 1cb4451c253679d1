package enginetest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"

	"github.com/gorm-tenancy/tenancy"
)

func (s *suite) replicas() tenancy.ReplicaEngine { return s.Engine.(tenancy.ReplicaEngine) }

func (s *suite) replicaConnector(p Place) driver.Connector {
	s.Helper()
	c, err := s.replicas().ReplicaConnector(s.DSN(p))
	if err != nil || c == nil {
		s.Fatalf("ReplicaConnector of a good DSN: %v, %v; it must do no I/O", c, err)
	}
	return c
}

// replicaRefusesWrites: nothing is written, and what was tried can run on the
// primary. The database is one that takes writes, as a promoted replica does.
func (s *suite) replicaRefusesWrites() {
	name := s.database()
	db := s.pool(s.replicaConnector(s.place(name)))
	ctx, cancel := s.bounded()
	defer cancel()
	try := func(what string, exec func(ctx context.Context, query string, args ...any) (sql.Result, error)) {
		s.Helper()
		for _, write := range []string{
			"INSERT INTO " + items + " (id, owner) VALUES (2, 'x')",
			"UPDATE " + items + " SET owner = 'x'",
			"DELETE FROM " + items,
			"CREATE TABLE enginetest_x (id int)",
			"DROP TABLE " + items,
		} {
			_, err := exec(ctx, write)
			if err == nil {
				s.Errorf("%s: a replica's connection took %s", what, write)
				continue
			}
			s.is(what+": "+write, err, tenancy.FaultNone)
			if !s.replicas().ReplicaRefused(err) {
				s.Errorf("%s: ReplicaRefused is false: %v", what, err)
			}
		}
	}
	for range 2 {
		var owner string
		if err := db.QueryRowContext(ctx, "SELECT owner FROM "+items+" WHERE id = 1").Scan(&owner); err != nil || owner != name {
			s.Errorf("a replica of %s: %q, %v", name, owner, err)
		}
		try("a replica", db.ExecContext)
	}
	// A failed statement ends a transaction on some servers: one for each.
	try("a transaction on a replica", func(ctx context.Context, query string, args ...any) (sql.Result, error) {
		tx, err := db.BeginTx(ctx, nil)
		s.must(err)
		res, err := tx.ExecContext(ctx, query, args...)
		_ = tx.Commit() // what was taken must not be lost to sight
		return res, err
	})
	if owners := s.owners(name); !slices.Equal(owners, []string{name}) {
		s.Errorf("the database has rows of %q, want %q alone", owners, name)
	}
}

// replicaRefused: what the primary could do better, and what not.
func (s *suite) replicaRefused() {
	db := s.pool(s.replicaConnector(s.place(s.database())))
	ctx, cancel := s.bounded()
	defer cancel()
	refused := s.replicas().ReplicaRefused
	for statement, want := range map[string]bool{
		"SELECT * FROM enginetest_later":                        true, // it may not have come from the primary yet
		"SELECT enginetest_later FROM " + items:                 true,
		"INSERT INTO " + items + " (id, owner) VALUES (3, 'x')": true,
		"SELEC 1": false,
	} {
		_, err := db.ExecContext(ctx, statement)
		if err == nil {
			s.Errorf("%s: no error", statement)
		} else if refused(err) != want {
			s.Errorf("%s: ReplicaRefused is %t, want %t: %v", statement, !want, want, err)
		}
	}
	for _, err := range []error{nil, errors.New("any error"), context.Canceled, driver.ErrBadConn} {
		if refused(err) {
			s.Errorf("ReplicaRefused(%v) is true", err)
		}
	}
}

// replicaIsLikeConnector: its connections are accounted for as any others, lead
// to their own database, and fail as they do.
func (s *suite) replicaIsLikeConnector() {
	a, b := s.database(), s.database()
	for _, name := range []string{a, b, a} {
		s.reads(s.replicaConnector(s.place(name)), name)
	}
	plain, replica := s.connector(s.place(a)), s.replicaConnector(s.place(a))
	_, plainPermits := plain.(tenancy.PermitConnector)
	_, replicaPermits := replica.(tenancy.PermitConnector)
	if plainPermits != replicaPermits {
		s.Errorf("Connector's is a PermitConnector: %t; ReplicaConnector's: %t", plainPermits, replicaPermits)
	}
	if pc, ok := replica.(tenancy.PermitConnector); ok {
		c := &permitted{PermitConnector: pc}
		db := s.pool(c)
		s.must(db.Ping())
		if c.permits()[0].isReleased() {
			s.Errorf("a replica's permit was released while its connection is open")
		}
		s.must(db.Close())
		s.happens("the permit of a replica's connection is released", c.permits()[0].released)
	}
	if ps, ok := plain.(tenancy.ServerConnector); ok {
		if rs, ok := replica.(tenancy.ServerConnector); !ok || rs.Server() != ps.Server() {
			s.Errorf("the replica's connector is no ServerConnector, or names another server")
		}
	}
	p := s.nowhere(s.Address)
	p.Password = s.Password
	s.is("a replica that is not there", s.refuses("a replica that is not there", s.replicaConnector(p)), tenancy.FaultTenant)
}
