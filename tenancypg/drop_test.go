package tenancypg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// interrupt interrupts a real DROP DATABASE so late that the database can only
// be dropped any more.
func (p *place) interrupt(name string) {
	p.t.Helper()
	ctx := p.ctx()
	defer p.exec("RESET statement_timeout")
	for try := range 600 {
		p.exec(fmt.Sprintf("SET statement_timeout = '%dms'", 1+try%25))
		_, err := p.root.Exec(ctx, "DROP DATABASE "+quote(name)+" WITH (FORCE)")
		for { // it is a statement too, and may be the one that takes too long
			if _, err := p.root.Exec(ctx, "RESET statement_timeout"); err == nil {
				break
			} else if code(err) != "57014" {
				p.t.Fatal(err)
			}
		}
		var limit int
		switch scan := p.root.QueryRow(ctx, "SELECT datconnlimit FROM pg_database WHERE datname = $1", name).Scan(&limit); {
		case errors.Is(scan, pgx.ErrNoRows):
			p.ok(err)
			p.exec("CREATE DATABASE " + quote(name) + " OWNER " + quote(p.adm))
		case scan != nil:
			p.ok(scan)
		case limit == invalidLimit:
			p.t.Logf("interrupted at the attempt %d: %v", try, err)
			return
		case code(err) != "57014":
			p.t.Fatalf("the database is whole, but: %v", err)
		}
	}
	p.t.Fatal("no DROP could be interrupted")
}

func TestServerInterruptedDrop(t *testing.T) {
	p := newPlace(t, apart)
	ctx, name := p.ctx(), p.name()
	ses := p.made(name)
	_, err := p.connect(name)
	p.ok(err)

	p.interrupt(name)
	p.refused(name)
	if there, err := ses.Exists(ctx); err != nil || there {
		t.Errorf("%t, %v", there, err)
	}
	found, err := p.s.Databases(ctx)
	p.ok(err)
	for _, f := range found {
		if f.Name == name && f.Broken == "" {
			t.Errorf("%+v", f)
		}
	}
	p.ok(ses.Create(ctx, ""))
	p.ok(ses.Mark(ctx, meta("u2", 1))) // nothing of the old one is there
	p.migrate(ses)
	p.ok(ses.Open(ctx))
	p.works(name)

	p.interrupt(name)
	p.ok(ses.Fence(ctx, 0))
	for range 2 {
		p.ok(ses.Drop(ctx))
	}
	var n int
	p.ok(p.root.QueryRow(ctx, "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n))
	if n != 0 {
		t.Error("it is still there")
	}
}

// A prepared transaction belongs to no session, so nothing but its name tells
// what has to be ended.
func TestServerPreparedTransactions(t *testing.T) {
	p := placeOn(t, pgtest.Start(t, pgtest.Setting("max_prepared_transactions", "5")), apart)
	ctx, name := p.ctx(), p.name()
	ses := p.made(name)
	c := p.pg.Conn(t, name) // a superuser's, whom the administrator can't end
	_, err := c.Exec(ctx, "BEGIN; INSERT INTO items (word) VALUES ('x'); PREPARE TRANSACTION 'it''s mine'")
	p.ok(err)
	err = ses.Fence(ctx, 0)
	if !errors.Is(err, catalog.ErrNotFenced) {
		t.Errorf("fenced: %v", err)
	}
	p.fails(err, "'it''s mine'")
	p.ok(c.Close(ctx))
	err = ses.Fence(ctx, sealPatience) // a dump would not have it
	if !errors.Is(err, catalog.ErrNotFenced) {
		t.Errorf("fenced: %v", err)
	}
	p.fails(err, "'it''s mine'")
	err = ses.Drop(ctx)
	p.fails(err, "'it''s mine' (COMMIT or ROLLBACK PREPARED them)")
	if code(err) != "55006" {
		t.Errorf("%v", err)
	}
	p.ok(ses.Open(ctx))
	p.works(name)
	c = p.pg.Conn(t, name)
	_, err = c.Exec(ctx, "ROLLBACK PREPARED 'it''s mine'")
	p.ok(err)
	p.ok(c.Close(ctx))
	p.ok(ses.Fence(ctx, sealPatience))
	p.ok(ses.Drop(ctx))
}

func TestServerRename(t *testing.T) {
	each(t, func(t *testing.T, roles string) {
		p := newPlace(t, roles)
		ctx, old, name, taken := p.ctx(), p.name(), p.name(), p.name()
		ses := p.made(old)
		other := p.made(taken)
		p.ok(other.Close())
		p.ok(ses.Fence(ctx, 0))
		p.ok(ses.Mark(ctx, meta("u1", 2)))

		for _, bad := range []string{"", "postgres", "template1", strings.Repeat("x", 64), "a\x00b"} {
			if err := ses.Rename(ctx, bad); err == nil {
				t.Errorf("%q was taken", bad)
			}
		}
		if err := ses.Rename(ctx, taken); code(err) != "42P04" {
			t.Errorf("a name that is taken: %v", err)
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if err := ses.Rename(cancelled, name); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		for range 2 {
			p.ok(ses.Rename(ctx, name))
		}
		if there, err := ses.Exists(ctx); err != nil || there {
			t.Errorf("the old name: %t, %v", there, err)
		}
		if _, err := p.connect(old); code(err) != "3D000" {
			t.Errorf("by the old name: %v", err)
		}
		p.refused(name) // it is fenced
		p.ok(ses.Close())

		renamed := p.session(name)
		if m, err := renamed.Owner(ctx); err != nil || m != meta("u1", 2) {
			t.Errorf("%+v, %v", m, err)
		}
		p.ok(renamed.Mark(ctx, meta("u1", 3)))
		p.ok(renamed.Open(ctx))
		p.works(name)
		p.works(taken)
		if _, err := p.connect(old); code(err) != "3D000" {
			t.Errorf("by the old name: %v", err)
		}
		p.fails(p.session(old).Rename(ctx, p.name()), "does not exist")
		// In use: what is connected is ended.
		c, err := p.connect(name)
		p.ok(err)
		p.ok(renamed.Rename(ctx, old))
		if err := c.Ping(ctx); err == nil {
			t.Error("a connection survived")
		}
	})
}

// A database that is adopted may have a table of the name that is not ours.
func TestServerForeignMeta(t *testing.T) {
	for _, table := range []string{
		"CREATE TABLE _tenant_meta (key text, value text)",
		"CREATE TABLE _tenant_meta (uid text, generation bigint, catalog text)",
		"CREATE TABLE _tenant_meta (uid text, generation text, catalog text); INSERT INTO _tenant_meta VALUES ('a', 'b', 'c')",
		"CREATE TABLE _tenant_meta (uid text, generation bigint, catalog text); INSERT INTO _tenant_meta DEFAULT VALUES",
		"CREATE TABLE _tenant_meta (uid text, generation bigint, catalog text, one boolean PRIMARY KEY DEFAULT true, more text NOT NULL)",
		"CREATE VIEW _tenant_meta AS SELECT 'a' AS uid",
		"CREATE VIEW _tenant_meta AS SELECT 'a' AS uid, 'b' AS generation, 'c' AS catalog",
	} {
		p := newPlace(t, apart)
		ctx, name := p.ctx(), p.name()
		ses := p.session(name)
		p.ok(ses.Create(ctx, ""))
		db, err := ses.DB(ctx)
		p.ok(err)
		_, err = db.Exec(table)
		p.ok(err)
		p.ok(db.Close())
		const want = "public._tenant_meta is a table or view that this package did not make; rename or drop it"
		for _, replaces := range []string{"", "*"} {
			m := meta("u1", 1)
			m.Replaces = replaces
			p.fails(ses.Mark(ctx, m), want)
		}
		if m, err := ses.Owner(ctx); err != nil {
			p.fails(err, want)
		} else if m != (catalog.Meta{}) {
			t.Errorf("%s: it is %+v's", table, m)
		}
		db, err = ses.DB(ctx)
		p.ok(err)
		kind := "TABLE"
		if strings.Contains(table, "VIEW") {
			kind = "VIEW"
		}
		_, err = db.Exec("ALTER " + kind + " _tenant_meta RENAME TO old_meta")
		p.ok(err)
		p.ok(db.Close())
		p.ok(ses.Mark(ctx, meta("u1", 1)))
		if m, err := ses.Owner(ctx); err != nil || m != meta("u1", 1) {
			t.Errorf("%s: %+v, %v", table, m, err)
		}
	}
}
