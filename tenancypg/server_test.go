package tenancypg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// A database's whole life, every step twice.
func TestServerLife(t *testing.T) {
	each(t, func(t *testing.T, roles string) {
		p := newPlace(t, roles, func(c *ServerConfig) {
			c.Settings = map[string]string{"search_path": `"$user", public`, "statement_timeout": "47s", "DateStyle": "SQL, DMY"}
			if roles == super { // a parameter of one's own needs SET on it
				c.Settings["app.tenant"] = `it's \ x`
			}
		})
		ctx, name := p.ctx(), p.name()
		ses := p.session(name)
		twice := func(fn func() error) {
			t.Helper()
			p.ok(fn())
			p.ok(fn())
		}
		exists := func(want bool) {
			t.Helper()
			got, err := ses.Exists(ctx)
			p.ok(err)
			if got != want {
				t.Fatalf("Exists is %t", got)
			}
		}
		exists(false)
		if m, err := ses.Owner(ctx); err != nil || m != (catalog.Meta{}) {
			t.Fatalf("%+v, %v", m, err)
		}
		twice(func() error { return ses.Drop(ctx) })
		twice(func() error { return ses.Create(ctx, "") })
		exists(true)
		p.refused(name)
		if m, err := ses.Owner(ctx); err != nil || m != (catalog.Meta{}) {
			t.Fatalf("%+v, %v", m, err)
		}
		twice(func() error { return ses.Mark(ctx, meta("u 1", 3)) })
		p.refused(name)
		p.migrate(ses)
		p.refused(name)
		twice(func() error { return ses.Open(ctx) })
		p.works(name)
		if m, err := ses.Owner(ctx); err != nil || m != meta("u 1", 3) {
			t.Fatalf("%+v, %v", m, err)
		}
		var path, timeout string
		var custom *string
		p.ok(p.appDB(name).QueryRow("SELECT current_setting('search_path'), current_setting('statement_timeout'), current_setting('app.tenant', true)").
			Scan(&path, &timeout, &custom))
		if path != `"$user", public` || timeout != "47s" || (roles == super) != (custom != nil && *custom == `it's \ x`) {
			t.Errorf("settings: %q %q %v", path, timeout, custom)
		}
		db, err := ses.DB(ctx)
		p.ok(err)
		p.ok(db.QueryRow("SHOW statement_timeout").Scan(&timeout))
		p.ok(db.Close())
		if timeout != "0" {
			t.Errorf("the administrator's statement_timeout is %s", timeout)
		}

		twice(func() error { return ses.Fence(ctx, 0) })
		p.refused(name)
		twice(func() error { return ses.Mark(ctx, meta("u 1", 4)) })
		p.refused(name)
		if m, err := ses.Owner(ctx); err != nil || m != meta("u 1", 4) {
			t.Fatalf("%+v, %v", m, err)
		}
		db, err = ses.DB(ctx) // fenced
		p.ok(err)
		_, err = db.Exec("UPDATE items SET word = 'tea'")
		p.ok(err)
		p.refused(name)
		p.ok(db.Close())
		twice(func() error { return ses.Open(ctx) })
		p.works(name)

		found, err := p.s.Databases(ctx)
		p.ok(err)
		n := 0
		for _, f := range found {
			if f == (catalog.Found{Name: name, Catalog: "cat", UID: "u 1"}) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("found %+v", found)
		}
		twice(func() error { return ses.Drop(ctx) })
		exists(false)
		p.ok(ses.Close())
		p.ok(ses.Close())
		_, err = ses.Exists(ctx)
		p.fails(err, "closed")
	})
}

func TestServerTemplate(t *testing.T) {
	each(t, func(t *testing.T, roles string) {
		p := newPlace(t, roles)
		ctx, tpl, name := p.ctx(), p.name(), p.name()
		ts := p.session(tpl)
		ses := p.session(name)

		err := ses.Create(ctx, tpl)
		if !errors.Is(err, catalog.ErrNoTemplate) {
			t.Errorf("no template: %v", err)
		}
		p.ok(ts.Create(ctx, ""))
		p.ok(ts.Mark(ctx, meta("template", 1)))
		p.migrate(ts)
		if err := ses.Create(ctx, tpl); !errors.Is(err, catalog.ErrNoTemplate) {
			t.Errorf("a half-made template: %v", err)
		}

		p.exec("ALTER DATABASE " + quote(tpl) + " ALLOW_CONNECTIONS true")
		busy := p.pg.Conn(t, tpl)
		if err := ts.Seal(ctx); !errors.Is(err, catalog.ErrNotFenced) || !strings.Contains(err.Error(), "postgres") {
			t.Errorf("a template in use: %v", err)
		}
		p.ok(busy.Close(ctx))
		p.ok(ts.Seal(ctx))
		p.ok(ts.Seal(ctx))
		if m, err := ts.Owner(ctx); err != nil || m != meta("template", 1) {
			t.Errorf("%+v, %v", m, err)
		}

		for range 2 {
			p.ok(ses.Create(ctx, tpl))
			p.refused(name)
		}
		m := meta("u1", 1)
		if err := ses.Mark(ctx, m); !errors.Is(err, catalog.ErrForeign) {
			t.Errorf("a copy that is the template's: %v", err)
		}
		m.Replaces = "template"
		p.ok(ses.Mark(ctx, m))
		p.ok(ses.Open(ctx))
		p.works(name)
		found, err := p.s.Databases(ctx)
		p.ok(err)
		for _, f := range found {
			if f.Template != (f.Name == tpl) && (f.Name == tpl || f.Name == name) {
				t.Errorf("%+v", f)
			}
		}
		p.ok(ts.Drop(ctx))
		p.ok(ts.Drop(ctx))
	})
}

func TestServerNames(t *testing.T) {
	p := newPlace(t, apart)
	for i, name := range []string{`a"b'c\d`, "a b.c/d", "Größe 📦", strings.Repeat("x", 63), "postgres://u@h/db?x=y", "dbname=postgres", "%s%%", "-x"} {
		ctx := p.ctx()
		name = fmt.Sprintf("%d%.*s", i, maxName-1, name)
		if len(name) > maxName {
			name = name[:maxName]
		}
		ses := p.made(name)
		p.works(name)
		var dump strings.Builder
		p.ok(ses.Dump(ctx, &dump))
		p.ok(ses.Restore(ctx, strings.NewReader(dump.String())))
		p.ok(ses.Mark(ctx, meta("u1", 2)))
		p.ok(ses.Open(ctx))
		p.works(name)
		p.ok(ses.Fence(ctx, 0))
		p.refused(name)
		p.ok(ses.Drop(ctx))
		p.ok(ses.Close())
	}
	for _, name := range []string{"", strings.Repeat("x", 64), "a\x00b", "postgres", "template0", "template1"} {
		if _, err := p.s.Database(name); err == nil {
			t.Errorf("%q: no error of Database", name)
		}
		if _, err := p.s.Session(p.ctx(), name, false); err == nil {
			t.Errorf("%q: no error of Session", name)
		}
	}
}

func TestMarkRules(t *testing.T) {
	p := newPlace(t, apart)
	ctx := p.ctx()
	name := p.name()
	ses := p.made(name)
	with := func(m catalog.Meta, catalogID, replaces string) catalog.Meta {
		m.Catalog, m.Replaces = catalogID, replaces
		return m
	}
	for _, m := range []catalog.Meta{
		meta("u2", 9), with(meta("u1", 9), "other", ""), with(meta("u2", 9), "cat", "u3"),
	} {
		if err := ses.Mark(ctx, m); !errors.Is(err, catalog.ErrForeign) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	p.ok(ses.Mark(ctx, meta("u1", 5)))
	p.fails(ses.Mark(ctx, meta("u1", 4)), "can't go back")
	p.ok(ses.Mark(ctx, with(meta(`u'2 \`, 1), "c=1 x", "u1")))
	p.ok(ses.Mark(ctx, with(meta("u3", 1), "cat", "*")))

	// A cancelled Mark has done all or nothing.
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := ses.Mark(gone, meta("u3", 2)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.ok(ses.Mark(ctx, meta("u3", 2)))

	// The application may read it, and no more.
	c, err := p.connect(name)
	p.ok(err)
	defer c.Close(ctx)
	for _, statement := range []string{"UPDATE _tenant_meta SET uid = 'x'", "DELETE FROM _tenant_meta", "INSERT INTO _tenant_meta VALUES ('x', 1, 'x')"} {
		if _, err := c.Exec(ctx, statement); code(err) != "42501" {
			t.Errorf("%s: %v", statement, err)
		}
	}
	root := p.pg.Conn(t, name)
	if _, err := root.Exec(ctx, "INSERT INTO _tenant_meta VALUES ('x', 1, 'x')"); code(err) != "23505" {
		t.Errorf("a second row: %v", err)
	}
}

// A pool asks its connections, and one of another tenant's or an older
// generation is refused.
func TestServerIdentity(t *testing.T) {
	p := newPlace(t, apart)
	name, empty := p.name(), p.name()
	p.made(name)
	ses := p.session(empty)
	p.ok(ses.Create(p.ctx(), ""))
	p.exec("GRANT CONNECT ON DATABASE " + quote(empty) + " TO PUBLIC")

	resolver := map[string]tenancy.Database{}
	add := func(id, name string, i tenancy.Identity) {
		d, err := p.s.Database(name)
		p.ok(err)
		d.Identity = i
		resolver[id] = d
	}
	add("right", name, tenancy.Identity{UID: "u1", Generation: 1})
	add("other", name, tenancy.Identity{UID: "u2", Generation: 1})
	add("newer", name, tenancy.Identity{UID: "u1", Generation: 2})
	add("empty", empty, tenancy.Identity{UID: "u1", Generation: 1})

	main, err := sql.Open("pgx", p.pg.DSN("postgres"))
	p.ok(err)
	defer main.Close()
	for id := range resolver {
		plugin := tenancy.New(tenancy.Config{Engine: Engine{}, Resolver: tenancy.ResolverFunc(
			func(_ context.Context, id string) (tenancy.Database, error) { return resolver[id], nil })})
		db, err := gorm.Open(p.s.Dialector(main), &gorm.Config{Logger: logger.Discard})
		p.ok(err)
		p.ok(db.Use(plugin))
		var word string
		err = db.WithContext(tenant.Ctx(p.ctx(), id)).Table("items").Select("word").Limit(1).Scan(&word).Error
		if id == "right" {
			p.ok(err)
			if word != "milk" {
				t.Errorf("read %q", word)
			}
		} else if !errors.Is(err, tenancy.ErrWrongDatabase) {
			t.Errorf("%s: %v", id, err)
		}
		p.ok(plugin.Close(p.ctx()))
	}
}

func TestServerBroken(t *testing.T) {
	p := newPlace(t, apart)
	ctx, name := p.ctx(), p.name()
	ses := p.made(name)
	invalidate := func() {
		t.Helper()
		p.exec("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '" + name + "'")
		there, err := ses.Exists(ctx)
		p.ok(err)
		if there {
			t.Error("it exists")
		}
		found, err := p.s.Databases(ctx)
		p.ok(err)
		for _, f := range found {
			if (f.Name == name) != (f.Broken != "") {
				t.Errorf("%+v", f)
			}
		}
	}
	invalidate()
	p.ok(ses.Fence(ctx, 0))
	if m, err := ses.Owner(ctx); err != nil || m != meta("u1", 1) {
		t.Errorf("%+v, %v", m, err)
	}
	p.ok(ses.Create(ctx, ""))
	if m, err := ses.Owner(ctx); err != nil || m != (catalog.Meta{}) {
		t.Errorf("made anew, it is %+v's, %v", m, err)
	}
	p.ok(ses.Mark(ctx, meta("u1", 1)))
	p.migrate(ses)
	p.ok(ses.Open(ctx))
	p.works(name)
	invalidate()
	p.ok(ses.Drop(ctx))
	if there, err := ses.Exists(ctx); err != nil || there {
		t.Errorf("%t, %v", there, err)
	}
}

// What a migration has revoked stays revoked, and what another role owns is
// left alone.
func TestServerGrants(t *testing.T) {
	p := newPlace(t, apart, func(c *ServerConfig) {
		c.Prepare = func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS prepared (id int)")
			return err
		}
	})
	ctx, name := p.ctx(), p.name()
	// An adopted database: made by hand, with all kinds of things in it.
	p.exec("CREATE DATABASE " + quote(name) + " OWNER " + quote(p.adm))
	root := p.pg.Conn(t, name)
	_, err := root.Exec(ctx, `CREATE TABLE foreign_owned (id int);
		SET ROLE `+quote(p.adm)+`;
		CREATE SCHEMA "s ""x"; CREATE TABLE "s ""x"."T a" (id serial); CREATE VIEW v AS SELECT 1 AS one;
		CREATE FUNCTION f(a int, b text) RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE PROCEDURE pr(a int) LANGUAGE sql AS 'SELECT 1';
		REVOKE EXECUTE ON FUNCTION f(int, text) FROM PUBLIC;
		CREATE TABLE items (id serial, word text)`)
	p.ok(err)
	ses := p.session(name)
	p.ok(ses.Mark(ctx, meta("u1", 1)))
	p.ok(ses.Open(ctx))
	p.works(name)
	app := p.appDB(name)
	for _, statement := range []string{
		`INSERT INTO "s ""x"."T a" DEFAULT VALUES`, "SELECT * FROM v", "SELECT f(1, 'x')", "CALL pr(1)",
		"SELECT setval('items_id_seq', 10)", "INSERT INTO prepared VALUES (1)", "CREATE TEMP TABLE scratch (id int)",
	} {
		if _, err := app.Exec(statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	if _, err := app.Exec("SELECT * FROM foreign_owned"); code(err) != "42501" {
		t.Errorf("another role's table: %v", err)
	}
	_, err = root.Exec(ctx, "REVOKE UPDATE ON items FROM "+quote(p.app)+"; CREATE TABLE later (id int)")
	p.ok(err)
	p.ok(root.Close(ctx))
	p.ok(ses.Fence(ctx, 0))
	p.ok(ses.Open(ctx))
	if _, err := p.appDB(name).Exec("UPDATE items SET word = ''"); code(err) != "42501" {
		t.Errorf("what was revoked: %v", err)
	}
	if _, err := p.appDB(name).Exec("INSERT INTO later VALUES (1)"); err != nil {
		t.Errorf("made later: %v", err)
	}
}

func TestServerHints(t *testing.T) {
	p := newPlace(t, apart)
	ctx, name := p.ctx(), p.name()
	p.exec("ALTER ROLE " + quote(p.adm) + " NOCREATEDB")
	p.fails(p.session(name).Create(ctx, ""), "CREATEDB")
	p.exec("ALTER ROLE " + quote(p.adm) + " CREATEDB")

	other := p.name()
	p.exec("CREATE DATABASE " + quote(other))
	defer p.exec("DROP DATABASE " + quote(other) + " WITH (FORCE)")
	ses := p.session(other)
	p.fails(ses.Mark(ctx, meta("u1", 1)), "must own the database")
	p.fails(ses.Drop(ctx), "must own the database")
	p.fails(p.session(p.name()).Mark(ctx, meta("u1", 1)), "does not exist")

	cfg := p.cfg
	cfg.App = p.dsn("nobody", "")
	s, err := NewServer(cfg)
	p.ok(err)
	defer s.Close()
	_, err = s.Session(ctx, p.name(), false)
	p.fails(err, `role "nobody" does not exist`)

	cfg = p.cfg
	cfg.Admin = p.dsn(p.adm, "missing")
	s2, err := NewServer(cfg)
	p.ok(err)
	defer s2.Close()
	_, err = s2.Session(ctx, name, false)
	p.fails(err, "does not exist")
	_, err = s2.Databases(ctx)
	p.fails(err, "does not exist")
	if text := fmt.Sprintf("%v %+v %#v", s2, s2, s2); strings.Contains(text, secret) {
		t.Errorf("it prints as %s", text)
	}
}

// A process that only serves tenants has no administrator.
func TestServerWithoutAdmin(t *testing.T) {
	p := newPlace(t, apart)
	name := p.name()
	p.made(name)
	p.cfg.Admin = ""
	s, err := NewServer(p.cfg)
	p.ok(err)
	d, err := s.Database(name)
	p.ok(err)
	db := sql.OpenDB(d.Connector)
	defer db.Close()
	var word string
	p.ok(db.QueryRow("SELECT word FROM items LIMIT 1").Scan(&word))
	for _, bad := range []string{"", "template1", strings.Repeat("x", 64)} {
		if _, err := s.Database(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	for _, steal := range []bool{false, true} {
		ses, err := s.Session(p.ctx(), name, steal)
		p.fails(err, "ServerConfig.Admin is empty")
		if ses != nil || !errors.Is(err, errNoAdmin) {
			t.Errorf("%v, %v", ses, err)
		}
	}
	_, err = s.Databases(p.ctx())
	p.fails(err, "ServerConfig.Admin is empty")
	for _, text := range []string{s.String(), fmt.Sprintf("%v %+v %#v", s, s, s)} {
		if strings.Contains(text, secret) || !strings.Contains(text, "tenancypg") {
			t.Errorf("it prints as %s", text)
		}
	}
	p.ok(s.Close())
	p.ok(s.Close())
}

func TestNewServerChecks(t *testing.T) {
	clearEnv(t)
	good := ServerConfig{App: "postgres://a:" + secret + "@h", Admin: "postgres://b:" + secret + "@h/postgres"}
	for _, tt := range []struct {
		change func(*ServerConfig)
		want   string
	}{
		{func(c *ServerConfig) { c.App = "" }, "App is empty"},
		{func(c *ServerConfig) { c.AdminConns = -1 }, "AdminConns"},
		{func(c *ServerConfig) { c.App = "postgres://a:" + secret + "@h:x/" }, "App"},
		{func(c *ServerConfig) { c.Admin = "postgres://b:" + secret + "@h" }, "must name its database"},
		{func(c *ServerConfig) { c.Admin = "postgres://b:" + secret + "@h/template1" }, "template1"},
		{func(c *ServerConfig) { c.App += "/?TimeZone=Moon" }, "TimeZone"},
		{func(c *ServerConfig) { c.Settings = map[string]string{"": "x"} }, "Settings"},
	} {
		cfg := good
		tt.change(&cfg)
		_, err := NewServer(cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v does not say %q", err, tt.want)
		}
		noSecret(t, err)
	}
	s, err := NewServer(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

// Replicas are checked as App is, and lead to the tenant's database by
// connections that don't write.
func TestServerReplicas(t *testing.T) {
	p := newPlace(t, apart)
	cfg := p.cfg
	for dsn, want := range map[string]string{
		"postgres://u:" + secret + "@h:port/":  "ServerConfig.Replicas[1]: ",
		"host=h sslmode=" + secret:             "ServerConfig.Replicas[1]: ",
		p.dsn(p.app, "") + "&timezone=Nowhere": "ServerConfig.Replicas[1]: ",
	} {
		cfg.Replicas = []string{p.dsn(p.app, ""), dsn}
		_, err := NewServer(cfg)
		p.fails(err, want)
	}
	cfg.Replicas = []string{p.dsn(p.app, "ignored")}
	p.cfg = cfg
	p.s = p.server()
	name := p.name()
	ses := p.session(name)
	p.ok(ses.Create(p.ctx(), ""))
	p.ok(ses.Mark(p.ctx(), meta("u 1", 1)))
	p.ok(ses.Open(p.ctx()))
	d, err := p.s.Database(name)
	p.ok(err)
	if len(d.Replicas) != 1 || d.Replicas[0].Connector.(tenancy.ServerConnector).Server() != p.pg.Addr() {
		t.Fatalf("%+v", d.Replicas)
	}
	db := sql.OpenDB(d.Replicas[0].Connector)
	t.Cleanup(func() { _ = db.Close() })
	var at string
	p.ok(db.QueryRow("SELECT current_database()").Scan(&at))
	if at != name {
		t.Errorf("the replica's connection is in %q", at)
	}
	_, err = db.Exec("CREATE TEMPORARY TABLE x (); CREATE TABLE x ()")
	p.fails(err, "25006")
}
