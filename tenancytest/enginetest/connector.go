package enginetest

import (
	"database/sql/driver"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/gorm-tenancy/tenancy"
)

// features compares what the engine can do with what Config says.
func (s *suite) features() {
	c := s.connector(s.place(s.database()))
	ctx, cancel := s.bounded()
	defer cancel()
	conn, err := s.connect(ctx, c)
	s.must(err)
	defer conn.Close() //nolint:errcheck // nothing is lost

	_, permits := c.(tenancy.PermitConnector)
	_, namesServer := c.(tenancy.ServerConnector)
	_, identifies := conn.(tenancy.IdentityConn)
	_, replicates := s.Engine.(tenancy.ReplicaEngine)
	_, namesDialect := s.Engine.(tenancy.Dialect)
	unknown := maps.Clone(s.Lacks)
	for feature, has := range map[Feature]bool{
		Network: s.Address != "", Passwords: s.Password != "", Cancels: s.Endless != "", Kills: s.Kill != nil, Saturates: s.Full != nil,
		Permits: permits, NamesServer: namesServer, Identifies: identifies, Replicates: replicates, NamesDialect: namesDialect,
	} {
		why, lacks := s.Lacks[feature]
		switch {
		case has && lacks:
			s.Errorf("Lacks names %s, but it is there", feature)
		case !has && !lacks:
			s.Errorf("%s is not there: implement it, set Config's field, or say in Lacks why not", feature)
		case lacks && strings.TrimSpace(why) == "":
			s.Errorf("Lacks gives no reason for %s", feature)
		}
		delete(unknown, feature)
	}
	for feature := range unknown {
		s.Errorf("Lacks names %q, which is no Feature", feature)
	}
	if l, ok := s.Engine.(tenancy.ServerLimit); ok && l.ServerLimit() <= 0 {
		s.Errorf("ServerLimit is %d; leave the method out for the default", l.ServerLimit())
	}
}

// connectors are the engine's two ways from a DSN to a connector.
func (s *suite) connectors() map[string]func(string) (driver.Connector, error) {
	all := map[string]func(string) (driver.Connector, error){"Connector": s.Engine.Connector}
	if r, ok := s.Engine.(tenancy.ReplicaEngine); ok {
		all["ReplicaConnector"] = r.ReplicaConnector
	}
	return all
}

// connectorRefuses: a DSN that is not good is an error at once, and its
// password is in nothing that an application prints.
func (s *suite) connectorRefuses() {
	for i, dsn := range s.Bad {
		for name, connector := range s.connectors() {
			what := fmt.Sprintf("%s of Bad[%d]", name, i)
			c, err := connector(dsn)
			if err == nil {
				s.Errorf("%s: no error, but a %T", what, c)
			}
			s.noSecret(what, err)
		}
		if strings.Contains(s.Engine.Server(dsn), Secret) {
			s.Errorf("Server of Bad[%d] shows its password", i)
		}
	}
}

// connectorDoesNoIO: what listens at a DSN's address hears nothing of it, and
// what does not answer does not hold it up.
func (s *suite) connectorDoesNoIO() {
	l := s.listen()
	for name, connector := range s.connectors() {
		var err error
		s.ends(name, func() { _, err = connector(s.DSN(s.nowhere(l.addr))) })
		if err != nil {
			s.Errorf("%s of a server that does not answer: %v", name, err)
		}
	}
	s.ends("Server", func() { s.Engine.Server(s.DSN(s.nowhere(l.addr))) })
	// A dial of our own comes after all that were before it.
	l.mark()
	if n := l.accepted(); n != 1 {
		s.Errorf("%d connections were made before any Connect", n-1)
	}
}

// serverName: databases of one server share a name, always the same.
func (s *suite) serverName() {
	a, b := s.DSN(s.place(s.database())), s.DSN(s.place(s.database()))
	name := s.Engine.Server(a)
	if name == "" {
		s.Errorf("Server of a good DSN is empty: its databases would have no breaker")
	}
	for range 3 {
		if again := s.Engine.Server(a); again != name {
			s.Errorf("Server is %q, then %q", name, again)
		}
	}
	if other := s.Engine.Server(b); other != name {
		s.Errorf("two databases of one server are on %q and %q: each would have a budget of its own", name, other)
	}
	if s.Password != "" && strings.Contains(name, s.Password) {
		s.Errorf("Server shows the password")
	}
	if c, ok := s.connector(s.place(s.database())).(tenancy.ServerConnector); ok && c.Server() != name {
		s.Errorf("the connector's Server is %q, the engine's %q", c.Server(), name)
	}
}

// serverByAddress: another server has another name, and a password none.
func (s *suite) serverByAddress() {
	at := func(addr, password string) string {
		return s.Engine.Server(s.DSN(Place{Addr: addr, Database: "x", Password: password}))
	}
	one := at("127.0.0.1:4001", s.Password)
	if one == at("127.0.0.1:4002", s.Password) {
		s.Errorf("servers on two ports are both %q: one that is down would take the other with it", one)
	}
	if s.Password == "" {
		return
	}
	if other := at("127.0.0.1:4001", Secret); other != one || strings.Contains(other, Secret) {
		s.Errorf("Server depends on the password")
	}
}

// dialect: db.Use compares it with GORM's.
func (s *suite) dialect() {
	got, want := s.Engine.(tenancy.Dialect).Dialect(), s.Dialector(s.raw(s.Create(s.TB))).Name()
	if got != want {
		s.Errorf("Dialect is %q, but GORM's is %q: no db could use the engine", got, want)
	}
}

// leadsThere: a connector opens the database of its DSN, and no other, also
// when others were opened before.
func (s *suite) leadsThere() {
	names := []string{s.database(), s.database(), s.database()}
	for range 2 {
		for _, name := range names {
			s.reads(s.connector(s.place(name)), name)
		}
	}
}

// reads connects and compares whose database it is.
func (s *suite) reads(c driver.Connector, want string) {
	s.Helper()
	ctx, cancel := s.bounded()
	defer cancel()
	db := s.pool(c)
	var got string
	if err := db.QueryRowContext(ctx, "SELECT owner FROM "+items+" WHERE id = 1").Scan(&got); err != nil || got != want {
		s.Errorf("the connector of %s leads to %q, %v", want, got, err)
	}
	if err := db.Close(); err != nil {
		s.Errorf("closing the connections: %v", err)
	}
}

// together: everything may be called by many goroutines at once. It says most
// under -race.
func (s *suite) together() {
	names := []string{s.database(), s.database(), s.database()}
	shared := make([]driver.Connector, len(names))
	for i, name := range names {
		shared[i] = s.connector(s.place(name))
	}
	ctx, cancel := s.bounded()
	defer cancel()
	var all sync.WaitGroup
	for w := range 3 * len(names) {
		all.Go(func() {
			i := w % len(names)
			dsn := s.DSN(s.place(names[i]))
			for range 3 {
				s.Engine.Server(dsn)
				own, err := s.Engine.Connector(dsn)
				if err != nil {
					s.Errorf("Connector: %v", err)
					return
				}
				for _, c := range []driver.Connector{own, shared[i]} {
					db := s.pool(c)
					var got string
					err := db.QueryRowContext(ctx, "SELECT owner FROM "+items+" WHERE id = 1").Scan(&got)
					s.Engine.Classify(err)
					if err != nil || got != names[i] {
						s.Errorf("the connector of %s leads to %q, %v", names[i], got, err)
					}
					_ = db.Close()
				}
			}
		})
	}
	s.ends("what many goroutines do", all.Wait)
}
