package tenancypg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// world is a main database and those of two tenants, acme and bravo, each with
// a table of orders.
type world struct {
	pg     *pgtest.Cluster
	db     *gorm.DB
	plugin *tenancy.Plugin
	names  map[string]string // of the databases, by tenant
}

// newWorld gives tenants one connection each at most, so that a connection
// that comes back is the next one that is used. If database is nil they have
// plain DSNs.
func newWorld(t *testing.T, e tenancypg.Engine, database func(dsn string) tenancy.Database) *world {
	t.Helper()
	w := &world{pg: pgtest.Shared(t), names: map[string]string{}}
	if database == nil {
		database = func(dsn string) tenancy.Database { return tenancy.Database{DSN: dsn} }
	}
	tenants := tenancy.Static{}
	for _, id := range []string{"acme", "bravo"} {
		w.names[id] = w.pg.CreateDatabase(t)
		w.pg.Exec(t, w.names[id], "CREATE TABLE orders (id serial PRIMARY KEY, title text)")
		d := database(w.pg.DSN(w.names[id]))
		d.MaxConns = 1
		tenants[id] = d
	}
	main, err := sql.Open("pgx", w.pg.DSN(w.pg.CreateDatabase(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = main.Close() })
	w.db, err = gorm.Open(postgres.New(postgres.Config{Conn: main}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	w.plugin = tenancy.New(tenancy.Config{Resolver: tenants, Engine: e})
	if err := w.db.Use(w.plugin); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.close(t) })
	return w
}

func (w *world) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.plugin.Close(ctx); err != nil {
		t.Error(err)
	}
}

// titles reads the orders in id's database, around the plugin.
func (w *world) titles(t *testing.T, id string) (all []string) {
	t.Helper()
	rows, err := w.pg.Conn(t, w.names[id]).Query(t.Context(), "SELECT title FROM orders ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	all, err = pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// backend asks GORM for the server process that serves ctx's tenant.
func (w *world) backend(t *testing.T, ctx context.Context) (pid int) {
	t.Helper()
	if err := w.db.WithContext(ctx).Raw("SELECT pg_backend_pid()").Scan(&pid).Error; err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestLiveCopyFromThroughPlugin(t *testing.T) {
	w := newWorld(t, tenancypg.Engine{}, nil)
	if n, err := copyOrders(t.Context(), w.db, []string{"nobody's"}); n != 0 || !errors.Is(err, tenancy.ErrNoTenant) {
		t.Errorf("without a tenant: %d rows, %v", n, err)
	}
	want := map[string][]string{"acme": {"bread", "milk", "salt"}, "bravo": {"coal"}}
	for id, titles := range want {
		n, err := copyOrders(tenant.Ctx(t.Context(), id), w.db, titles)
		if err != nil || n != int64(len(titles)) {
			t.Errorf("%s: %d rows, %v", id, n, err)
		}
	}
	for id, titles := range want {
		if got := w.titles(t, id); !slices.Equal(got, titles) {
			t.Errorf("%s has %v, want %v", id, got, titles)
		}
	}

	// The same connection serves GORM afterwards.
	acme := tenant.Ctx(t.Context(), "acme")
	pid := w.backend(t, acme)
	if _, err := copyOrders(acme, w.db, []string{"more"}); err != nil {
		t.Fatal(err)
	}
	if next := w.backend(t, acme); next != pid {
		t.Errorf("backend %d became %d", pid, next)
	}
}

func TestLiveListenThroughPlugin(t *testing.T) {
	w := newWorld(t, tenancypg.Engine{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	type note struct{ id, payload string }
	notes := make(chan note, 16)
	ended := make(map[string]chan error)
	before := map[string]int{}
	for id := range w.names {
		ctx := tenant.Ctx(ctx, id)
		before[id] = w.backend(t, ctx)
		ended[id] = make(chan error, 1)
		go func() {
			ended[id] <- listen(ctx, w.db, func(payload string) { notes <- note{id, payload} })
		}()
	}
	for id, pid := range before {
		// Its last statement has run when the session is idle again.
		w.wait(t, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND query = 'LISTEN orders' AND state = 'idle')", pid)
		w.pg.Exec(t, w.names[id], "SELECT pg_notify('orders', $1)", "of "+id)
	}
	// A notification is heard once by all who listen in its database, and a
	// second one that somebody hears must not be the other's.
	for range before {
		if n := recv(t, notes); n.payload != "of "+n.id {
			t.Errorf("%s heard %q", n.id, n.payload)
		}
	}
	for id := range w.names {
		w.pg.Exec(t, w.names[id], "NOTIFY orders, 'last'")
	}
	for range before {
		if n := recv(t, notes); n.payload != "last" {
			t.Errorf("%s heard %q as well", n.id, n.payload)
		}
	}

	cancel()
	for id, end := range ended {
		if err := recv(t, end); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", id, err)
		}
	}
	for id, pid := range before {
		ctx := tenant.Ctx(t.Context(), id)
		var channels int64
		if err := w.db.WithContext(ctx).Raw("SELECT count(*) FROM pg_listening_channels()").Scan(&channels).Error; err != nil || channels != 0 {
			t.Errorf("%s: the next session listens on %d channels, %v", id, channels, err)
		}
		if next := w.backend(t, ctx); next == pid {
			t.Errorf("%s: the session that listened was used again", id)
		}
	}
}

// sockets is a dialer that counts.
type sockets struct {
	net.Dialer
	open, all atomic.Int32
	dialled   chan string // addresses
}

func (s *sockets) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := s.Dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	s.open.Add(1)
	s.all.Add(1)
	s.dialled <- addr
	return &socket{Conn: c, all: s}, nil
}

type socket struct {
	net.Conn
	all  *sockets
	once sync.Once
}

func (s *socket) Close() error {
	s.once.Do(func() { s.all.open.Add(-1) })
	return s.Conn.Close()
}

// All sockets come from the application's dialer: that of a connection, and
// that of the request to cancel its query. They are closed when the plugin is.
func TestLiveDialFunc(t *testing.T) {
	s := &sockets{dialled: make(chan string, 16)}
	// Nothing but this dialer finds the server.
	var server string
	engine := tenancypg.Engine{Configure: func(cfg *pgx.ConnConfig) error {
		server = net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port))
		cfg.Host, cfg.Port = "nowhere.invalid", 1
		cfg.Fallbacks = nil
		cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == "nowhere.invalid:1" {
				addr = server
			}
			return s.DialContext(ctx, network, addr)
		}
		return nil
	}}
	w := newWorld(t, engine, nil)
	acme := tenant.Ctx(t.Context(), "acme")

	pid := w.backend(t, acme)
	recv(t, s.dialled)
	if open, all := s.open.Load(), s.all.Load(); open != 1 || all != 1 {
		t.Errorf("%d sockets are open of %d", open, all)
	}

	ctx, cancel := context.WithCancel(acme)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- w.db.WithContext(ctx).Exec("SELECT pg_sleep(60)").Error }()
	w.wait(t, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep(60)%' AND state = 'active')", pid)
	cancel()
	if err := recv(t, failed); !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled query: %v", err)
	}
	recv(t, s.dialled) // the cancel request
	w.wait(t, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid)
	if all := s.all.Load(); all != 2 {
		t.Errorf("%d sockets for one connection and one cancel request", all)
	}

	w.close(t)
	if open := s.open.Load(); open != 0 {
		t.Errorf("%d sockets are open after Close", open)
	}
}

// Connectors made of the application's own configurations, each tenant's its
// own.
func TestLiveConnectorConfigThroughPlugin(t *testing.T) {
	s := &sockets{dialled: make(chan string, 16)}
	w := newWorld(t, tenancypg.Engine{}, func(dsn string) tenancy.Database {
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.DialFunc = s.DialContext
		c, err := tenancypg.Engine{}.ConnectorConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return tenancy.Database{Connector: c}
	})
	for id, name := range w.names {
		var got string
		if err := w.db.WithContext(tenant.Ctx(t.Context(), id)).Raw("SELECT current_database()").Scan(&got).Error; err != nil || got != name {
			t.Errorf("%s: in %s, want %s: %v", id, got, name, err)
		}
	}
	if n := s.open.Load(); n != 2 {
		t.Errorf("%d sockets are open for two tenants", n)
	}
	w.close(t)
	if n := s.open.Load(); n != 0 {
		t.Errorf("%d sockets are open after Close", n)
	}
}

// wait asks the server until query says true.
func (w *world) wait(t *testing.T, query string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn := w.pg.Admin(t)
	for {
		var ok bool
		if err := conn.QueryRow(ctx, query, args...).Scan(&ok); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if ok {
			return
		}
	}
}

func recv[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// A credential source that fails, or that hands out another tenant's DSN.
func TestLiveBeforeConnectThroughPlugin(t *testing.T) {
	var before atomic.Pointer[func(*pgx.ConnConfig) error]
	set := func(f func(*pgx.ConnConfig) error) { before.Store(&f) }
	engine := tenancypg.Engine{BeforeConnect: func(_ context.Context, cfg *pgx.ConnConfig) error {
		return (*before.Load())(cfg)
	}}
	w := newWorld(t, engine, nil)
	w.pg.Exec(t, w.names["bravo"], "INSERT INTO orders (title) VALUES ('secret of bravo')")
	acme := tenant.Ctx(t.Context(), "acme")
	read := func() (titles []string, err error) {
		err = w.db.WithContext(acme).Raw("SELECT title FROM orders").Scan(&titles).Error
		return titles, err
	}

	set(func(cfg *pgx.ConnConfig) error {
		other, err := pgx.ParseConfig(w.pg.DSN(w.names["bravo"]))
		if err == nil {
			*cfg = *other
		}
		return err
	})
	if titles, err := read(); err == nil || len(titles) != 0 {
		t.Errorf("acme was led to bravo's database: %v, %v", titles, err)
	}
	down := errors.New("the vault is down")
	set(func(*pgx.ConnConfig) error { return down })
	if _, err := read(); !errors.Is(err, down) {
		t.Errorf("the source's error became %v", err)
	}
	// Nothing is remembered: the next dial asks again.
	set(func(*pgx.ConnConfig) error { return nil })
	pid := w.backend(t, acme)
	// And a source that is down again does not concern who is connected.
	set(func(*pgx.ConnConfig) error { return down })
	if next := w.backend(t, acme); next != pid {
		t.Errorf("backend %d became %d", pid, next)
	}
}
