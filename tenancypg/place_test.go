package tenancypg

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// place is a server with roles of the test's own.
type place struct {
	t        *testing.T
	pg       *pgtest.Cluster
	s        *Server
	cfg      ServerConfig
	app, adm string // roles
	root     *pgx.Conn
}

// The ways in which the two roles can be.
const (
	apart = "two roles"
	one   = "one role"
	super = "one superuser"
)

func newPlace(t *testing.T, roles string, change ...func(*ServerConfig)) *place {
	t.Helper()
	return placeOn(t, pgtest.Shared(t), roles, change...)
}

func placeOn(t *testing.T, pg *pgtest.Cluster, roles string, change ...func(*ServerConfig)) *place {
	t.Helper()
	clearEnv(t)
	tag := strings.ToLower(rand.Text()[:10])
	p := &place{t: t, pg: pg, adm: "adm " + tag, root: pg.Admin(t)}
	attributes := " LOGIN CREATEDB PASSWORD '" + secret + "'"
	if roles == super {
		attributes += " SUPERUSER"
	}
	p.exec("CREATE ROLE " + quote(p.adm) + attributes)
	p.app = p.adm
	if roles == apart {
		p.app = "app'" + tag
		p.exec("CREATE ROLE " + quote(p.app) + " LOGIN PASSWORD '" + secret + "'")
		p.exec("GRANT pg_signal_backend TO " + quote(p.adm))
	}
	t.Cleanup(p.clean)
	p.cfg = ServerConfig{App: p.dsn(p.app, ""), Admin: p.dsn(p.adm, "postgres")}
	for _, fn := range change {
		fn(&p.cfg)
	}
	p.s = p.server()
	return p
}

func (p *place) clean() {
	rows, err := p.root.Query(context.Background(), "SELECT datname::text FROM pg_database WHERE pg_get_userbyid(datdba) = $1", p.adm)
	if err != nil {
		p.t.Error(err)
		return
	}
	names, _ := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, name := range names {
		p.exec("UPDATE pg_database SET datistemplate = false WHERE datname = " + literal(name))
		p.exec("DROP DATABASE IF EXISTS " + quote(name) + " WITH (FORCE)")
	}
	for _, role := range []string{p.app, p.adm} {
		p.exec("DROP ROLE IF EXISTS " + quote(role))
	}
}

// server is another process's.
func (p *place) server() *Server {
	p.t.Helper()
	s, err := NewServer(p.cfg)
	p.ok(err)
	p.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (p *place) dsn(user, database string) string {
	u, err := url.Parse(p.pg.DSN(database))
	p.ok(err)
	u.User = url.UserPassword(user, secret)
	return u.String()
}

func (p *place) exec(sql string) {
	p.t.Helper()
	_, err := p.root.Exec(context.Background(), sql)
	p.ok(err)
}

func (p *place) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// fails asserts an error that says want and not the password.
func (p *place) fails(err error, want string) {
	p.t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		p.t.Errorf("the error %v does not say %q", err, want)
	}
	noSecret(p.t, err)
}

func (p *place) name() string { return "t_" + strings.ToLower(rand.Text()[:12]) }

func (p *place) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	p.t.Cleanup(cancel)
	return ctx
}

func (p *place) session(name string) catalog.Session {
	p.t.Helper()
	ses, err := p.s.Session(p.ctx(), name, false)
	p.ok(err)
	p.t.Cleanup(func() { _ = ses.Close() })
	return ses
}

func meta(uid string, generation int64) catalog.Meta {
	return catalog.Meta{Catalog: "cat", Identity: tenancy.Identity{UID: uid, Generation: generation}}
}

// made is an open database with a table of rows.
func (p *place) made(name string) catalog.Session {
	p.t.Helper()
	ctx := p.ctx()
	ses := p.session(name)
	p.ok(ses.Create(ctx, ""))
	p.ok(ses.Mark(ctx, meta("u1", 1)))
	p.migrate(ses)
	p.ok(ses.Open(ctx))
	return ses
}

func (p *place) migrate(ses catalog.Session) {
	p.t.Helper()
	db, err := ses.DB(p.ctx())
	p.ok(err)
	_, err = db.Exec("CREATE TABLE items (id bigserial PRIMARY KEY, word text); INSERT INTO items (word) VALUES ('milk')")
	p.ok(err)
	p.ok(db.Close())
}

// connect is the application's connection.
func (p *place) connect(name string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(p.cfg.App)
	p.ok(err)
	cfg.Database = name
	return pgx.ConnectConfig(p.ctx(), cfg)
}

// appDB is the application's pool.
func (p *place) appDB(name string) *sql.DB {
	p.t.Helper()
	d, err := p.s.Database(name)
	p.ok(err)
	db := sql.OpenDB(d.Connector)
	p.t.Cleanup(func() { _ = db.Close() })
	return db
}

// refused asserts that the application can't connect.
func (p *place) refused(name string) {
	p.t.Helper()
	c, err := p.connect(name)
	if err == nil {
		_ = c.Close(p.ctx())
		p.t.Errorf("the application connected to %q", name)
	}
}

// works asserts that the application can connect, read and write.
func (p *place) works(name string) {
	p.t.Helper()
	c, err := p.connect(name)
	p.ok(err)
	defer c.Close(context.Background())
	_, err = c.Exec(p.ctx(), "INSERT INTO items (word) VALUES ('bread'); UPDATE items SET word = word; DELETE FROM items WHERE word = 'bread'")
	p.ok(err)
}

// sessions counts who is connected, around all that is under test.
func (p *place) sessions(name string) (n int) {
	p.t.Helper()
	p.ok(p.root.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'", name).Scan(&n))
	return n
}

// eventually waits until fn is true.
func (p *place) eventually(what string, fn func() bool) {
	p.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !fn(); <-tick.C {
		if time.Now().After(end) {
			p.t.Fatalf("never: %s", what)
		}
	}
}

func each(t *testing.T, fn func(t *testing.T, roles string)) {
	for _, roles := range []string{apart, one, super} {
		t.Run(fmt.Sprint(roles), func(t *testing.T) { fn(t, roles) })
	}
}
