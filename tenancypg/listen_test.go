package tenancypg

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func mainDB(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	c, err := Engine{PreferSimpleProtocol: true}.Connector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(c)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestListen(t *testing.T) {
	p := newPlace(t, apart)
	main := mainDB(t, p.pg.DSN("postgres"))
	const channel = `a "channel" ü`
	ctx, cancel := context.WithCancel(p.ctx())
	defer cancel()
	listen := func(ctx context.Context) (heard chan string, ended chan error) {
		heard, ended = make(chan string, 10), make(chan error, 1)
		ready := make(chan struct{})
		go func() {
			ended <- p.s.Listen(ctx, main, channel, func() { close(ready) }, func(s string) { heard <- s })
		}()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatal(err)
		}
		return heard, ended
	}
	first, ended := listen(ctx)
	second, endedToo := listen(ctx) // whose nonce the first does not pass on
	_, err := main.Exec("SELECT pg_notify('" + channel + "', 'it''s')")
	p.ok(err)
	for _, heard := range []chan string{first, second} {
		select {
		case got := <-heard:
			if got != "it's" {
				t.Errorf("heard %q", got)
			}
		case <-time.After(time.Second):
			t.Error("heard nothing within a second")
		}
	}
	p.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%channel%'")
	for _, ended := range []chan error{ended, endedToo} {
		select {
		case err := <-ended:
			if err == nil || ctx.Err() != nil {
				t.Errorf("%v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("it outlives its connection")
		}
	}

	_, ended = listen(ctx)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	p.eventually("nobody listens", func() bool {
		var n int
		p.ok(p.root.QueryRow(p.ctx(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%channel%'").Scan(&n))
		return n == 0
	})
}

// A silent server: nothing is closed, and nothing comes.
func TestListenSilence(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	s, err := NewServer(ServerConfig{App: pg.DSN("x"), Admin: pg.DSN("postgres")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	main := mainDB(t, pg.DSN("postgres"))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Listen(context.Background(), main, "c", func() { close(ready) }, func(string) {})
	}()
	<-ready
	pg.Freeze()
	defer pg.Thaw()
	start := time.Now()
	select {
	case err := <-ended:
		t.Logf("after %v: %v", time.Since(start), err)
	case <-time.After(20 * time.Second):
		t.Fatal("a dead connection was not noticed")
	}
}

func TestListenPooler(t *testing.T) {
	p := newPlace(t, apart)
	for mode, want := range map[string]string{"transaction": "pool_mode", "session": ""} {
		b := pgtest.StartBouncer(t, p.pg, pgtest.PoolMode(mode))
		main := mainDB(t, b.DSN("postgres"))
		ctx, cancel := context.WithCancel(p.ctx())
		ready := false
		err := p.s.Listen(ctx, main, "c", func() { ready = true; cancel() }, func(string) {})
		if ready != (want == "") {
			t.Errorf("%s: ready is %t, %v", mode, ready, err)
		}
		p.fails(err, want)
		cancel()
	}
	main := mainDB(t, p.pg.DSN("postgres"))
	main.SetMaxOpenConns(1)
	p.fails(p.s.Listen(p.ctx(), main, "c", func() { t.Error("ready") }, func(string) {}), "second connection")
}
