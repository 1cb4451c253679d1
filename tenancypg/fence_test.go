package tenancypg

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// Clients that never stop trying: once Fence has returned, not one of them is
// connected, connects or writes.
func TestFenceUnderLoad(t *testing.T) {
	each(t, func(t *testing.T, roles string) {
		p := newPlace(t, roles)
		ctx, name := p.ctx(), p.name()
		ses := p.made(name)
		cfg, err := pgx.ParseConfig(p.cfg.App)
		p.ok(err)
		cfg.Database = name

		for round := range 3 {
			var fenced atomic.Bool
			var worked, after atomic.Int32
			stop := make(chan struct{})
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						already := fenced.Load()
						c, err := pgx.ConnectConfig(ctx, cfg)
						if err != nil {
							continue
						}
						for range 3 {
							if _, err := c.Exec(ctx, "INSERT INTO items (word) VALUES ('x')"); err != nil {
								break
							}
							worked.Add(1)
							if already {
								after.Add(1)
							}
						}
						_ = c.Close(ctx)
					}
				})
			}
			p.eventually("clients write", func() bool { return worked.Load() > 20 })
			p.ok(ses.Fence(ctx, time.Duration(round)*20*time.Millisecond))
			fenced.Store(true)
			at := worked.Load()
			if n := p.sessions(name); n != 0 {
				t.Errorf("%d sessions are left", n)
			}
			for range 3 {
				p.refused(name)
			}
			// Replies to what was written before may still be on their way, so
			// the database is asked, through a connection of the superuser's.
			if roles == apart {
				var before, later int
				look, err := pgx.Connect(ctx, p.pg.DSN(name))
				p.ok(err)
				p.ok(look.QueryRow(ctx, "SELECT count(*) FROM items").Scan(&before))
				p.refused(name)
				p.ok(look.QueryRow(ctx, "SELECT count(*) FROM items").Scan(&later))
				p.ok(look.Close(ctx))
				if before != later {
					t.Errorf("%d rows were written", later-before)
				}
			}
			close(stop)
			all.Wait()
			if n := after.Load(); n > 0 || at == 0 {
				t.Errorf("%d writes on connections begun after the fence", n)
			}
			p.ok(ses.Open(ctx))
			p.works(name)
		}
	})
}

func TestFenceDrains(t *testing.T) {
	p := newPlace(t, apart)
	ctx, name := p.ctx(), p.name()
	ses := p.made(name)

	// A transaction that ends in time is not hurt.
	c, err := p.connect(name)
	p.ok(err)
	tx, err := c.Begin(ctx)
	p.ok(err)
	_, err = tx.Exec(ctx, "INSERT INTO items (word) VALUES ('last')")
	p.ok(err)
	fenced := make(chan error, 1)
	go func() { fenced <- ses.Fence(ctx, 30*time.Second) }()
	p.eventually("no connection begins", func() bool {
		other, err := p.connect(name)
		if err == nil {
			_ = other.Close(ctx)
		}
		return err != nil
	})
	select {
	case err := <-fenced:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	p.ok(tx.Commit(ctx))
	p.ok(c.Close(ctx))
	p.ok(<-fenced)
	var n int
	p.ok(p.pg.Conn(t, name).QueryRow(ctx, "SELECT count(*) FROM items WHERE word = 'last'").Scan(&n))
	if n != 1 {
		t.Error("the transaction is lost")
	}

	// One that does not end is ended.
	p.ok(ses.Open(ctx))
	c, err = p.connect(name)
	p.ok(err)
	defer c.Close(ctx)
	_, err = c.Exec(ctx, "BEGIN; INSERT INTO items (word) VALUES ('never')")
	p.ok(err)
	// The superuser's look from before is in the way, and this role can't end it.
	err = ses.Fence(ctx, 10*time.Millisecond)
	if !errors.Is(err, catalog.ErrNotFenced) || !strings.Contains(err.Error(), "postgres (pid") || !strings.Contains(err.Error(), "pg_signal_backend") {
		t.Errorf("a superuser's session: %v", err)
	}
	if _, err := c.Exec(ctx, "COMMIT"); err == nil {
		t.Error("it was not ended")
	}
}

func TestFenceWithoutSignal(t *testing.T) {
	p := newPlace(t, apart)
	ctx, name := p.ctx(), p.name()
	ses := p.made(name)
	p.exec("REVOKE pg_signal_backend FROM " + quote(p.adm))
	c, err := p.connect(name)
	p.ok(err)
	err = ses.Fence(ctx, 0)
	if !errors.Is(err, catalog.ErrNotFenced) || !strings.Contains(err.Error(), p.app) {
		t.Errorf("%v", err)
	}
	p.fails(err, "pg_signal_backend")
	p.fails(ses.Drop(ctx), "pg_signal_backend")
	p.ok(c.Close(ctx))
	p.ok(ses.Fence(ctx, 10*time.Second))
	p.refused(name)
}

// Rights that come by other ways than the application's own grant.
func TestFenceOtherRights(t *testing.T) {
	for what, grant := range map[string]func(p *place, name string){
		"PUBLIC": func(p *place, name string) { p.exec("GRANT CONNECT ON DATABASE " + quote(name) + " TO PUBLIC") },
		"group": func(p *place, name string) {
			p.exec("GRANT CONNECT ON DATABASE " + quote(name) + " TO pg_monitor")
			p.exec("GRANT pg_monitor TO " + quote(p.app))
		},
		"owner":     func(p *place, name string) { p.exec("GRANT " + quote(p.adm) + " TO " + quote(p.app)) },
		"superuser": func(p *place, name string) { p.exec("ALTER ROLE " + quote(p.app) + " SUPERUSER") },
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlace(t, apart)
			ctx, name := p.ctx(), p.name()
			p.ok(p.made(name).Close())
			grant(p, name)
			ses := p.session(name)
			c, err := p.connect(name)
			p.ok(err)
			defer c.Close(ctx)
			if what == "superuser" {
				p.ok(c.Close(ctx))
			}
			p.ok(ses.Fence(ctx, 10*time.Millisecond))
			p.refused(name)
			if n := p.sessions(name); n != 0 {
				t.Errorf("%d sessions", n)
			}
			p.ok(ses.Open(ctx))
			p.works(name)
			// A superuser's last session, which this administrator can't end,
			// may take a moment to go.
			p.eventually("dropped", func() bool { err = ses.Drop(ctx); return err == nil || what != "superuser" })
			p.ok(err)
		})
	}
}

func TestSessionExcludes(t *testing.T) {
	p := newPlace(t, apart, func(c *ServerConfig) { c.AdminConns = 2 })
	ctx, name := p.ctx(), p.name()
	ses := p.session(name)

	// Many wait, here and in another process, and others are not kept.
	type got struct {
		ses catalog.Session
		err error
	}
	waiters := make(chan got)
	servers := []*Server{p.s, p.server()}
	for i := range 6 {
		go func() {
			ses, err := servers[i%2].Session(ctx, name, false)
			waiters <- got{ses, err}
		}()
	}
	for range 20 {
		p.ok(p.session(p.name()).Close())
		if _, err := p.s.Databases(ctx); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := servers[1].Session(short, name, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a name that is taken: %v", err)
	}
	select {
	case w := <-waiters:
		t.Fatalf("two sessions: %v", w.err)
	default:
	}
	p.ok(ses.Create(ctx, ""))
	p.ok(ses.Close())
	for range 6 {
		w := <-waiters
		p.ok(w.err)
		if there, err := w.ses.Exists(ctx); err != nil || !there {
			t.Errorf("%t, %v", there, err)
		}
		select {
		case w := <-waiters:
			t.Fatalf("two sessions: %v", w.err)
		default:
		}
		p.ok(w.ses.Close())
	}
}

// Whoever was stolen from does nothing any more, with all that it has open.
func TestSessionSteal(t *testing.T) {
	each(t, func(t *testing.T, roles string) {
		p := newPlace(t, roles)
		ctx, name := p.ctx(), p.name()
		old := p.made(name)
		db, err := old.DB(ctx)
		p.ok(err)
		running := make(chan error, 1)
		go func() {
			_, err := db.ExecContext(ctx, "SELECT pg_sleep(600)")
			running <- err
		}()
		p.eventually("it runs", func() bool {
			var n int
			p.ok(p.root.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND query LIKE '%pg_sleep(600)'", name).Scan(&n))
			return n == 1
		})
		ses, err := p.server().Session(ctx, name, true)
		p.ok(err)
		defer ses.Close()
		if err := <-running; code(err) != "57P01" {
			t.Errorf("a statement went on: %v", err)
		}
		for what, err := range map[string]error{
			"Create": old.Create(ctx, ""), "Mark": old.Mark(ctx, meta("u1", 9)), "Open": old.Open(ctx),
			"Fence": old.Fence(ctx, 0), "Seal": old.Seal(ctx), "Drop": old.Drop(ctx),
			"Dump": old.Dump(ctx, &strings.Builder{}), "Restore": old.Restore(ctx, strings.NewReader("")),
		} {
			if err == nil || !strings.Contains(err.Error(), "connection was lost") {
				t.Errorf("%s: %v", what, err)
			}
			noSecret(t, err)
		}
		if err := db.PingContext(ctx); err == nil {
			t.Error("its database can be opened")
		}
		if m, err := ses.Owner(ctx); err != nil || m != meta("u1", 1) {
			t.Errorf("%+v, %v", m, err)
		}
		p.works(name)
		p.ok(old.Close())
		p.ok(ses.Drop(ctx))
	})
}

// A ctx that ends cancels the statement, and the session goes on.
func TestSessionSurvivesCancel(t *testing.T) {
	p := newPlace(t, apart)
	ctx, name := p.ctx(), p.name()
	ses := p.made(name)
	c, err := p.connect(name)
	p.ok(err)
	defer c.Close(ctx)
	short, cancel := context.WithTimeout(ctx, 60*time.Millisecond)
	defer cancel()
	if err := ses.Fence(short, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	p.refused(name)
	p.ok(ses.Fence(ctx, 0))

	// A DROP that is cancelled at some moment, and done again.
	for _, after := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond} {
		short, cancel := context.WithTimeout(ctx, after)
		err := ses.Drop(short)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		short, cancel = context.WithTimeout(ctx, after)
		err = ses.Create(short, "")
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		p.ok(ses.Create(ctx, ""))
		p.ok(ses.Mark(ctx, meta("u1", 1)))
		p.ok(ses.Open(ctx))
	}
}

// Administration through a pooler would exclude nobody.
func TestSessionRefusesPooler(t *testing.T) {
	p := newPlace(t, super)
	for _, mode := range []string{"session", "transaction"} {
		b := pgtest.StartBouncer(t, p.pg, pgtest.PoolMode(mode))
		cfg := p.cfg
		cfg.Admin = b.DSN("postgres") + "&statement_cache_capacity=0&default_query_exec_mode=exec"
		cfg.AdminEngine.Configure = func(c *pgx.ConnConfig) error {
			c.RuntimeParams = map[string]string{}
			return nil
		}
		s, err := NewServer(cfg)
		p.ok(err)
		defer s.Close()
		_, err = s.Session(p.ctx(), p.name(), false)
		p.fails(err, "connection pooler")
	}
}
