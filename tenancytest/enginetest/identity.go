package enginetest

import (
	"context"
	"database/sql"
	"errors"

	"github.com/gorm-tenancy/tenancy"
)

const metaTable = "CREATE TABLE " + tenancy.MetaTable + " (uid varchar(64) NOT NULL, generation bigint NOT NULL)"

// marked makes a database that says whose it is.
func (s *suite) marked() (name string) {
	s.Helper()
	name = s.database()
	db := s.raw(name)
	s.exec(db, metaTable)
	s.exec(db, "INSERT INTO "+tenancy.MetaTable+" (uid, generation) VALUES ('enginetest', 7)")
	return name
}

func (s *suite) exec(db *sql.DB, statement string) {
	s.Helper()
	ctx, cancel := s.bounded()
	defer cancel()
	_, err := db.ExecContext(ctx, statement)
	s.must(err)
}

var marks = tenancy.Identity{UID: "enginetest", Generation: 7}

// identity: the plugin uses a database that says what is expected, and no
// other.
func (s *suite) identity() {
	name := s.marked()
	bare := s.database()
	dsn := func(name string) string { return s.DSN(s.place(name)) }
	for what, c := range map[string]struct {
		name     string
		identity tenancy.Identity
		good     bool
	}{
		"the right mark":       {name, marks, true},
		"another UID":          {name, tenancy.Identity{UID: "other", Generation: 7}, false},
		"another generation":   {name, tenancy.Identity{UID: "enginetest", Generation: 8}, false},
		"no table":             {bare, marks, false},
		"nothing is asked for": {bare, tenancy.Identity{}, true},
	} {
		db := s.tenants(map[string]tenancy.Database{"t": {DSN: dsn(c.name), Identity: c.identity}})
		var item Item
		err := s.in(db, "t").First(&item, 1).Error
		switch {
		case c.good && (err != nil || item.Owner != c.name):
			s.Errorf("%s: %q, %v", what, item.Owner, err)
		case !c.good && err == nil:
			s.Errorf("%s: another tenant's database was read", what)
		case !c.good && !errors.Is(err, tenancy.ErrWrongDatabase) && !errors.Is(err, tenancy.ErrUnavailable):
			s.Errorf("%s: %v", what, err)
		}
	}
}

// identityConn: a connection that reads the mark by itself tells a missing one
// from a failure.
func (s *suite) identityConn() {
	marked, bare, empty := s.marked(), s.database(), s.database()
	s.exec(s.raw(empty), metaTable)
	ctx, cancel := s.bounded()
	defer cancel()
	for name, want := range map[string]tenancy.Identity{marked: marks, bare: {}, empty: {}} {
		conn, err := s.connect(ctx, s.connector(s.place(name)))
		s.must(err)
		id, ok := conn.(tenancy.IdentityConn)
		if !ok {
			_ = conn.Close()
			s.Fatalf("%T is no IdentityConn", conn)
		}
		for range 2 { // the connection is as good as before
			if got, err := id.Identity(ctx); err != nil || got != want {
				s.Errorf("Identity is %s, %v; want %s", got, err, want)
			}
		}
		// One that can't ask must not say that there is nothing.
		over, end := context.WithCancel(ctx)
		end()
		if got, err := id.Identity(over); err == nil && got != want {
			s.Errorf("Identity under a ctx that has ended is %s, without an error", got)
		}
		if err := conn.Close(); err != nil {
			s.Errorf("closing the connection: %v", err)
		}
	}
}
