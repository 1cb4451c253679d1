package enginetest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// closesAtOnce is how long a socket may outlive its permit: what the close
// needs to be seen on the other side.
const closesAtOnce = time.Second

// permit accounts for one connection.
type permit struct {
	once     sync.Once
	released chan struct{}
}

func newPermit() *permit { return &permit{released: make(chan struct{})} }

// Release implements tenancy.Permit: calls after the first do nothing.
func (p *permit) Release() { p.once.Do(func() { close(p.released) }) }

func (p *permit) isReleased() bool {
	select {
	case <-p.released:
		return true
	default:
		return false
	}
}

// permitted gives every connection of a pool a permit.
type permitted struct {
	tenancy.PermitConnector
	mu  sync.Mutex
	all []*permit
}

// Connect implements driver.Connector.
func (c *permitted) Connect(ctx context.Context) (driver.Conn, error) {
	p := newPermit()
	conn, err := c.ConnectPermit(ctx, p)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, p)
	return conn, nil
}

func (c *permitted) permits() []*permit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*permit(nil), c.all...)
}

// permits makes the engine's connector count.
func (s *suite) permitted(p Place) *permitted {
	s.Helper()
	c, ok := s.connector(p).(tenancy.PermitConnector)
	if !ok {
		s.Fatalf("the connector is no PermitConnector")
	}
	return &permitted{PermitConnector: c}
}

// through is the place of a database behind a proxy.
func (s *suite) through(p *proxy, name string) Place {
	return Place{Addr: p.addr(), Database: name, Password: s.Password}
}

// permit: it is kept for as long as the connection is open, and given back when
// the socket is closed.
func (s *suite) permit() {
	name := s.database()
	p := s.proxy()
	c := s.permitted(s.through(p, name))
	db := s.pool(c)
	ctx, cancel := s.bounded()
	defer cancel()
	const n = 3
	var conns []*sql.Conn
	for range n {
		conn, err := db.Conn(ctx)
		s.must(err)
		s.must(conn.PingContext(ctx))
		conns = append(conns, conn)
	}
	for _, permit := range c.permits() {
		if permit.isReleased() {
			s.Fatalf("a permit was released while its connection is open")
		}
	}
	for _, conn := range conns {
		s.must(conn.Close())
	}
	if err := db.Close(); err != nil {
		s.Errorf("closing the connections: %v", err)
	}
	for _, permit := range c.permits() {
		s.happens("the permit of a closed connection is released", permit.released)
	}
	s.closed(p)

	// Of a connection that did not come about, the caller releases the permit,
	// and nobody uses it afterwards.
	failed := s.permitted(s.nowhere(s.listening(true).addr))
	if conn, err := failed.ConnectPermit(ctx, newPermit()); err == nil || conn != nil {
		s.Errorf("ConnectPermit to a server that hangs up: %v, %v", conn, err)
	}
}

// closed fails unless all of a proxy's sockets are closed by now.
func (s *suite) closed(p *proxy) {
	s.Helper()
	if !p.await(closesAtOnce, func() bool { return p.open == 0 }) {
		s.Errorf("a permit was released while the connection's socket is open: the server could get more connections than the budget allows")
	}
}

// permitOfCancelled: where a connection takes a while to die, because the
// network is silent, its permit is kept for so long.
func (s *suite) permitOfCancelled() {
	name := s.database()
	p := s.proxy()
	c := s.permitted(s.through(p, name))
	db := s.pool(c)
	s.must(db.Ping())
	sent := 0
	p.note(func() { sent = p.sent })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var err error
	done := make(chan struct{})
	go func() { defer close(done); _, err = db.ExecContext(ctx, s.Endless) }()
	if !p.await(s.Patience, func() bool { return p.sent > sent }) {
		s.Fatalf("waited %v in vain until a statement was sent", s.Patience)
	}
	p.silence(true)
	cancel()
	s.happens("a statement returns after its ctx was cancelled", done)
	if err == nil {
		s.Fatalf("a statement that was cancelled: no error; does Endless run for a minute?")
	}
	s.is("a statement that was cancelled", err, tenancy.FaultCaller)

	permit := c.permits()[0]
	select {
	case <-permit.released:
		s.closed(p)
	case <-time.After(closesAtOnce): // an engine may keep it: the connection is still dying
	}
	p.silence(false)
	s.must(db.Close())
	// Twice as long: it may have begun to wait for the server only now.
	if !permit.isReleased() {
		limit := time.NewTimer(2 * s.Patience)
		defer limit.Stop()
		select {
		case <-permit.released:
		case <-limit.C:
			s.Fatalf("the permit of a cancelled connection was never released")
		}
	}
	s.closed(p)
}

// permitOfKilled: a connection that the server ended gives its permit back.
func (s *suite) permitOfKilled() {
	name := s.database()
	c := s.permitted(s.place(name))
	db := s.pool(c)
	ctx, cancel := s.bounded()
	defer cancel()
	conn, err := db.Conn(ctx)
	s.must(err)
	s.must(conn.PingContext(ctx))
	s.Kill(s.TB, name)
	_ = conn.PingContext(ctx) // fails
	_ = conn.Close()
	s.must(db.Close())
	s.happens("the permit of a killed connection is released", c.permits()[0].released)
}
