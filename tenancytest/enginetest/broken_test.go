package enginetest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// broken is an engine of which a part is replaced.
type broken struct {
	tenancypg.Engine
	connector      func(dsn string) (driver.Connector, error)
	replica        func(dsn string) (driver.Connector, error)
	replicaRefused func(error) bool
	server         func(dsn string) string
	classify       func(error) tenancy.Fault
	dialect        string
}

var sound tenancypg.Engine

func (b broken) Connector(dsn string) (driver.Connector, error) {
	if b.connector != nil {
		return b.connector(dsn)
	}
	return b.Engine.Connector(dsn)
}

func (b broken) ReplicaConnector(dsn string) (driver.Connector, error) {
	if b.replica != nil {
		return b.replica(dsn)
	}
	return b.Engine.ReplicaConnector(dsn)
}

func (b broken) ReplicaRefused(err error) bool {
	if b.replicaRefused != nil {
		return b.replicaRefused(err)
	}
	return b.Engine.ReplicaRefused(err)
}

func (b broken) Server(dsn string) string {
	if b.server != nil {
		return b.server(dsn)
	}
	return b.Engine.Server(dsn)
}

func (b broken) Classify(err error) tenancy.Fault {
	if b.classify != nil {
		return b.classify(err)
	}
	return b.Engine.Classify(err)
}

func (b broken) Dialect() string {
	if b.dialect != "" {
		return b.dialect
	}
	return b.Engine.Dialect()
}

// classifies says that what the sound engine gives the fault from has the fault
// to.
func classifies(from, to tenancy.Fault) broken {
	return broken{classify: func(err error) tenancy.Fault {
		if got := sound.Classify(err); got != from || err == nil {
			return got
		}
		return to
	}}
}

// connects replaces how a connection is made.
func connects(connect func(ctx context.Context, sound tenancy.PermitConnector, permit tenancy.Permit) (driver.Conn, error)) broken {
	return broken{connector: func(dsn string) (driver.Connector, error) {
		c, err := sound.Connector(dsn)
		if err != nil {
			return nil, err
		}
		return connector{c.(tenancy.PermitConnector), connect}, nil
	}}
}

type connector struct {
	tenancy.PermitConnector
	connect func(context.Context, tenancy.PermitConnector, tenancy.Permit) (driver.Conn, error)
}

func (c connector) Server() string { return c.PermitConnector.(tenancy.ServerConnector).Server() }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	return c.ConnectPermit(ctx, nil)
}

func (c connector) ConnectPermit(ctx context.Context, permit tenancy.Permit) (driver.Conn, error) {
	return c.connect(ctx, c.PermitConnector, permit)
}

// conn is a connection of which a part is replaced.
type conn struct {
	*driverwrap.Conn
	identity func(context.Context) (tenancy.Identity, error)
	begin    func() (driver.Tx, error)
	closed   func()
	patient  bool // knows no ctx
}

func wrap(c driver.Conn) *conn { return &conn{Conn: &driverwrap.Conn{Conn: c}} }

func (c *conn) Identity(ctx context.Context) (tenancy.Identity, error) {
	if c.identity != nil {
		return c.identity(ctx)
	}
	return c.Unwrap().(tenancy.IdentityConn).Identity(ctx)
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if c.begin != nil {
		return c.begin()
	}
	return c.Conn.BeginTx(ctx, opts)
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.patient {
		ctx = context.Background()
	}
	return c.Conn.ExecContext(ctx, query, args)
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	if c.closed != nil {
		c.closed()
	}
	return err
}

// wrapped replaces a part of each connection.
func wrapped(change func(*conn)) broken {
	return connects(func(ctx context.Context, sound tenancy.PermitConnector, permit tenancy.Permit) (driver.Conn, error) {
		c, err := sound.ConnectPermit(ctx, permit)
		if err != nil {
			return nil, err
		}
		w := wrap(c)
		change(w)
		return w, nil
	})
}

type noTx struct{}

func (noTx) Commit() error   { return nil }
func (noTx) Rollback() error { return nil }

// onlyFirst opens the database of the first DSN, whichever is asked for.
func onlyFirst() broken {
	var first atomic.Pointer[string]
	return broken{connector: func(dsn string) (driver.Connector, error) {
		first.CompareAndSwap(nil, &dsn)
		return sound.Connector(*first.Load())
	}}
}

// latest opens the database of the DSN that was parsed last.
func latest() broken {
	var mu sync.Mutex
	var last driver.Connector
	return broken{connector: func(dsn string) (driver.Connector, error) {
		c, err := sound.Connector(dsn)
		mu.Lock()
		defer mu.Unlock()
		last = c
		if err != nil {
			return nil, err
		}
		return connector{c.(tenancy.PermitConnector), func(ctx context.Context, _ tenancy.PermitConnector, permit tenancy.Permit) (driver.Conn, error) {
			mu.Lock()
			c := last
			mu.Unlock()
			return c.(tenancy.PermitConnector).ConnectPermit(ctx, permit)
		}}, nil
	}}
}

// quoting wraps an error whose text has the DSN, and shows it or not.
func quoting(shown bool) broken {
	return broken{connector: func(dsn string) (driver.Connector, error) {
		c, err := sound.Connector(dsn)
		switch {
		case err == nil:
			return c, nil
		case shown:
			return nil, fmt.Errorf("can't parse %q", dsn)
		}
		return nil, &discreet{errors.New(dsn)}
	}}
}

type discreet struct{ err error }

func (*discreet) Error() string                { return "can't parse the DSN" }
func (d *discreet) Unwrap() error              { return d.err }
func (d *discreet) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(d.Error())) }

// dialling looks whether the server is there before it returns a connector.
func dialling() broken {
	return broken{connector: func(dsn string) (driver.Connector, error) {
		if c, err := net.Dial("tcp", sound.Server(dsn)); err == nil {
			_ = c.Close()
		}
		return sound.Connector(dsn)
	}}
}

// leaking never closes a socket.
func leaking() broken {
	return broken{Engine: tenancypg.Engine{Configure: func(cfg *pgx.ConnConfig) error {
		dial := cfg.DialFunc
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			leaked.Store(c, true) // or else the garbage collector closes it
			return unclosed{c}, nil
		}
		return nil
	}}}
}

var leaked sync.Map

type unclosed struct{ net.Conn }

func (unclosed) Close() error { return nil }

// counted keeps the permit from the sound engine, and gives it back when
// release says so.
func counted(release func(*conn, tenancy.Permit)) broken {
	return connects(func(ctx context.Context, sound tenancy.PermitConnector, permit tenancy.Permit) (driver.Conn, error) {
		c, err := sound.Connect(ctx)
		if err != nil {
			return nil, err
		}
		w := wrap(c)
		if permit != nil {
			release(w, permit)
		}
		return w, nil
	})
}

// unwrapping looks at the error itself, and not at what it wraps.
func unwrapping() broken {
	return broken{classify: func(err error) tenancy.Fault {
		if strings.HasPrefix(fmt.Sprint(err), "x: ") {
			return tenancy.FaultNone
		}
		return sound.Classify(err)
	}}
}

func always(i tenancy.Identity) func(context.Context) (tenancy.Identity, error) {
	return func(context.Context) (tenancy.Identity, error) { return i, nil }
}

// plain is a replica's connector that counts nothing.
func plain(dsn string) (driver.Connector, error) {
	c, err := sound.ReplicaConnector(dsn)
	if err != nil {
		return nil, err
	}
	return struct{ driver.Connector }{c}, nil
}

// engineOnly has none of the optional methods.
type engineOnly struct{ tenancy.Engine }

// dependent connects before it returns a connector.
func dependent() broken {
	return broken{connector: func(dsn string) (driver.Connector, error) {
		c, err := sound.Connector(dsn)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		conn, err := c.Connect(ctx)
		if err != nil {
			return nil, errors.New("the server does not answer")
		}
		return c, conn.Close()
	}}
}
