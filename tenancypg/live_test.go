package tenancypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// liveDSN returns the DSN of a new database on a running server, or skips the
// test.
func liveDSN(t testing.TB) string {
	t.Helper()
	pg := pgtest.Shared(t)
	return pg.DSN(pg.CreateDatabase(t))
}

// openLive opens a pool of one connection.
func openLive(t testing.TB, e Engine) (*sql.DB, *permits) {
	t.Helper()
	c, err := e.Connector(liveDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	ps := &permits{PermitConnector: c.(tenancy.PermitConnector)}
	db := sql.OpenDB(ps)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db, ps
}

func backend(t testing.TB, db *sql.DB) (pid int) {
	t.Helper()
	if err := db.QueryRow("SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestLivePermitOnClose(t *testing.T) {
	db, ps := openLive(t, Engine{})
	backend(t, db)
	p := ps.dialled(t, 0)
	if p.releases.Load() != 0 {
		t.Fatal("released while the connection is open")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p.check(t)
}

func TestLiveTerminatedBackend(t *testing.T) {
	db, ps := openLive(t, Engine{})
	victim := backend(t, db)
	admin, _ := openLive(t, Engine{})
	ctx := context.Background()

	// While it is in use: the statement fails, the connection leaves the pool.
	c, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec("SELECT pg_terminate_backend($1, 10000)", victim); err != nil {
		t.Fatal(err)
	}
	// On the pgx connection, because database/sql turns an error that came
	// before anything was sent into driver.ErrBadConn.
	if err := c.Raw(func(dc any) error {
		_, err := dc.(*conn).Conn().Exec(ctx, "SELECT 1")
		if f := (Engine{}).Classify(err); f != tenancy.FaultServer {
			t.Errorf("%v is %v", err, f)
		}
		if dc.(driver.Validator).IsValid() {
			t.Error("IsValid says true of a dead connection")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	ps.dialled(t, 0).check(t)
	if got := backend(t, db); got == victim {
		t.Fatal("the dead connection was used again")
	}
}

// A cancelled query's connection is closed at once as far as pgx's API goes,
// while its socket and its backend live on until the cancel request is done.
func TestLiveCancelledQuery(t *testing.T) {
	gate := newProxy(t)
	db, ps := openLive(t, Engine{Configure: gate.redirect})
	backend(t, db)
	p := ps.dialled(t, 0)
	admin, _ := openLive(t, Engine{})

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(ctx, "SELECT pg_sleep(60)")
		failed <- err
	}()
	waitUntil(t, admin, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'")

	gate.stall() // the cancel request will not arrive
	cancel()
	err := <-failed
	if f := (Engine{}).Classify(err); f != tenancy.FaultCaller {
		t.Errorf("%v is %v", err, f)
	}
	if n := db.Stats().OpenConnections; n != 0 {
		t.Errorf("database/sql still holds %d connections", n)
	}
	select {
	case <-*p.gone.Load():
		t.Fatal("pgx cleaned up without its cancel request: this test proves nothing")
	case <-p.released:
		t.Fatal("the permit was released while the server still runs the query")
	default:
	}
	gate.resume()
	p.check(t)
}

func TestLiveOpenTransactionIsDropped(t *testing.T) {
	db, ps := openLive(t, Engine{})
	if _, err := db.Exec("BEGIN"); err != nil {
		t.Fatal(err)
	}
	ps.dialled(t, 0).check(t)
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
}

// A transaction whose ctx ends must not put a broken connection back.
func TestLiveCancelledTx(t *testing.T) {
	db, ps := openLive(t, Engine{})
	ctx, cancel := context.WithCancel(context.Background())
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := tx.Commit(); err == nil {
		t.Error("a cancelled transaction was committed")
	}
	var one int
	if err := db.QueryRow("SELECT 1").Scan(&one); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	for i := range ps.all {
		ps.dialled(t, i).check(t)
	}
}

func TestLivePingIsBounded(t *testing.T) {
	gate := newProxy(t)
	c, err := Engine{Configure: gate.redirect}.Connector(liveDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	p := newPermit()
	dc, err := c.(tenancy.PermitConnector).ConnectPermit(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	pc := dc.(*conn)

	// Fresh: no ping, so even a silent server costs nothing.
	gate.stall()
	if err := pc.ResetSession(context.Background()); err != nil {
		t.Fatalf("a connection just used was pinged: %v", err)
	}
	gate.resume()
	pc.lastUsed = time.Now().Add(-time.Hour)
	if err := pc.ResetSession(context.Background()); err != nil {
		t.Fatalf("the ping of a healthy connection failed: %v", err)
	}

	gate.stall()
	pc.lastUsed = time.Now().Add(-time.Hour)
	start := time.Now()
	if err := pc.ResetSession(context.Background()); !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("ResetSession on a silent server: %v", err)
	}
	if d := time.Since(start); d < pingTimeout || d > 5*time.Second {
		t.Errorf("the ping took %v", d)
	}
	if pc.IsValid() {
		t.Error("valid after a failed ping")
	}
	_ = pc.Close()
	gate.resume()
	p.wait(t)
}

func TestLiveConnectFailures(t *testing.T) {
	dsn := liveDSN(t)
	admin, _ := openLive(t, Engine{})
	for _, q := range []string{
		"DROP DATABASE IF EXISTS tenancypg_closed",
		"CREATE DATABASE tenancypg_closed ALLOW_CONNECTIONS false",
	} {
		if _, err := admin.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = admin.Exec("DROP DATABASE IF EXISTS tenancypg_closed") })
	for _, name := range []string{"tenancypg_closed", "tenancypg_no_such_database"} {
		c, err := Engine{Configure: func(cfg *pgx.ConnConfig) error { cfg.Database = name; return nil }}.Connector(dsn)
		if err != nil {
			t.Fatal(err)
		}
		p := newPermit()
		_, err = c.(tenancy.PermitConnector).ConnectPermit(context.Background(), p)
		if f := (Engine{}).Classify(err); f != tenancy.FaultTenant {
			t.Errorf("%s: %v is %v", name, err, f)
		}
		if p.releases.Load() != 0 {
			t.Errorf("%s: a failed ConnectPermit released the permit, which is its caller's", name)
		}
	}
}

func TestLiveRaw(t *testing.T) {
	dsn := liveDSN(t)
	ours, _ := openLive(t, Engine{})
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	plain := stdlib.OpenDB(*cfg)
	defer plain.Close()
	ctx := context.Background()
	for name, db := range map[string]*sql.DB{"tenancypg": ours, "stdlib": plain} {
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ExecContext(ctx, "CREATE TEMP TABLE copied (id int, name text)"); err != nil {
			t.Fatal(err)
		}
		if err := Raw(c, func(pc *pgx.Conn) error {
			_, err := pc.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id", "name"},
				pgx.CopyFromRows([][]any{{1, "a"}, {2, "b"}}))
			return err
		}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var n int
		if err := c.QueryRowContext(ctx, "SELECT count(*) FROM copied").Scan(&n); err != nil || n != 2 {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
		failure := errors.New("mine")
		if err := Raw(c, func(*pgx.Conn) error { return failure }); !errors.Is(err, failure) {
			t.Errorf("%s: fn's error became %v", name, err)
		}
		_ = c.Close()
	}
}

// One column, read through gorm's own driver and through ours, must give the
// same instant.
func TestLiveTimeZoneLikeGORM(t *testing.T) {
	dsn := liveDSN(t)
	sep := " "
	if strings.Contains(dsn, "://") {
		sep = "?"
		if strings.Contains(dsn, "?") {
			sep = "&"
		}
	}
	for _, zone := range []string{"", "TimeZone=Asia/Tokyo", "timezone=America/New_York"} {
		dsn := dsn
		if zone != "" {
			dsn += sep + zone
		}
		g, err := gorm.Open(postgres.Open(dsn), &gorm.Config{})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := g.DB()
		if err != nil {
			t.Fatal(err)
		}
		c, err := Engine{}.Connector(dsn)
		if err != nil {
			t.Fatal(err)
		}
		ours := sql.OpenDB(c)
		type row struct {
			Plain, Zoned time.Time
			Session      string
		}
		read := func(db *sql.DB) (r row) {
			t.Helper()
			if err := db.QueryRow("SELECT '2024-07-01 12:00:00'::timestamp, '2024-07-01 12:00:00'::timestamptz, current_setting('TimeZone')").
				Scan(&r.Plain, &r.Zoned, &r.Session); err != nil {
				t.Fatal(err)
			}
			return r
		}
		want, got := read(theirs), read(ours)
		if !got.Plain.Equal(want.Plain) || got.Plain.String() != want.Plain.String() ||
			!got.Zoned.Equal(want.Zoned) || got.Session != want.Session {
			t.Errorf("%q: %v, gorm's driver reads %v", zone, got, want)
		}
		_ = theirs.Close()
		_ = ours.Close()
	}
}

// waitUntil asks the server until query says true.
func waitUntil(t testing.TB, db *sql.DB, query string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		var ok bool
		if err := db.QueryRowContext(ctx, query).Scan(&ok); err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
	}
}
