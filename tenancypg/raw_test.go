package tenancypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/internal/pgxconn"
)

// other is a driver that is not pgx.
type other struct{ driver.Conn }

func (o other) Connect(context.Context) (driver.Conn, error) { return o, nil }
func (other) Driver() driver.Driver                          { return nil }
func (other) Close() error                                   { return nil }

func TestRawOnAnotherDriver(t *testing.T) {
	db := sql.OpenDB(other{})
	defer db.Close()
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = Raw(c, func(*pgx.Conn) error {
		t.Error("fn was called")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "tenancypg.other") {
		t.Errorf("the error does not name the driver: %v", err)
	}
}

// wrapped is how the root package, a tracer or a counter wraps a connection.
type wrapped struct{ driver.Conn }

func (w wrapped) Unwrap() driver.Conn { return w.Conn }

// wrapper wraps what a connector connects, as many times as depth says.
type wrapper struct {
	driver.Connector
	depth int
}

func (w wrapper) Connect(ctx context.Context) (driver.Conn, error) {
	dc, err := w.Connector.Connect(ctx)
	for range w.depth {
		dc = wrapped{dc}
	}
	return dc, err
}

func TestRawOnAWrappedOtherDriver(t *testing.T) {
	db := sql.OpenDB(wrapper{other{}, 2})
	defer db.Close()
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Raw(c, func(*pgx.Conn) error { return nil }); err == nil {
		t.Error("no error for a wrapper of another driver's connection")
	}
	if _, ok := pgxconn.Of(wrapped{}); ok {
		t.Error("a wrapper of nothing has a pgx connection")
	}
}

func TestLiveRawThroughWrappers(t *testing.T) {
	inner, err := Engine{}.Connector(liveDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	for depth := range 4 {
		db := sql.OpenDB(wrapper{inner, depth})
		defer db.Close()
		c, err := db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := Raw(c, func(pc *pgx.Conn) error { return pc.Ping(context.Background()) }); err != nil {
			t.Errorf("under %d wrappers: %v", depth, err)
		}
	}
}

// A connection that fn closed leaves the pool, and gives its permit back.
func TestLiveRawClose(t *testing.T) {
	db, ps := openLive(t, Engine{})
	first := backend(t, db)
	ctx := context.Background()
	c, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := Raw(c, func(pc *pgx.Conn) error { return pc.Close(ctx) }); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	ps.dialled(t, 0).check(t)
	if next := backend(t, db); next == first {
		t.Error("a closed connection was used again")
	}
}
