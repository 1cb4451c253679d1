package tenancypg

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// lockAt opens the database name with the administrator's DSN.
func (p *place) lockAt(name string, l migrate.Lock) (*migrate.Exclusive, error) {
	p.t.Helper()
	x, err := Engine{}.LockDatabase(p.ctx(), tenancy.Database{DSN: p.dsn(p.adm, name)}, l)
	if err == nil {
		p.t.Cleanup(func() { _ = x.Close() })
	}
	return x, err
}

// locked is lockAt that succeeds.
func (p *place) locked(name string, l migrate.Lock) *migrate.Exclusive {
	p.t.Helper()
	x, err := p.lockAt(name, l)
	p.ok(err)
	return x
}

// database is a new one of the administrator's.
func (p *place) database() string {
	p.t.Helper()
	name := p.name()
	p.exec("CREATE DATABASE " + quote(name) + " OWNER " + quote(p.adm))
	return name
}

func (p *place) run(db *sql.DB, query string) {
	p.t.Helper()
	_, err := db.ExecContext(p.ctx(), query)
	p.ok(err)
}

// is asserts that err is target, and shows no password.
func (p *place) is(err, target error) {
	p.t.Helper()
	if !errors.Is(err, target) {
		p.t.Errorf("the error is %v, want %v", err, target)
	}
	noSecret(p.t, err)
}

func TestLockExcludes(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	x := p.locked(name, migrate.Lock{})

	begin := time.Now()
	_, err := p.lockAt(name, migrate.Lock{Wait: 30 * time.Millisecond})
	p.is(err, migrate.ErrLocked)
	var pid string
	p.ok(x.DB.QueryRow("SELECT pg_backend_pid()").Scan(&pid))
	p.fails(err, "pid "+pid+`, application_name "`+migrationName)
	p.fails(err, "from 127.0.0.1")
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("waited %v", took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err = p.s.LockDatabase(ctx, name, migrate.Lock{})
	p.is(err, context.DeadlineExceeded)
	// Another database's lock is another one.
	p.locked(p.database(), migrate.Lock{Wait: time.Second})

	got := make(chan error)
	go func() {
		y, err := p.s.LockDatabase(p.ctx(), name, migrate.Lock{})
		if err == nil {
			err = y.Close()
		}
		got <- err
	}()
	p.eventually("the other one waits", func() bool { return p.named(name, waitingName) == 1 })
	p.ok(x.Close())
	p.ok(<-got)
}

// named counts the connections by the beginning of their application_name.
func (p *place) named(name, application string) (n int) {
	p.t.Helper()
	p.ok(p.root.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND starts_with(application_name, $2)", name, application).Scan(&n))
	return n
}

func TestLockSettings(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	p.exec("ALTER ROLE " + quote(p.adm) + " SET lock_timeout = '1h'")
	p.exec("ALTER DATABASE " + quote(name) + " SET default_transaction_read_only = on")
	x, err := Engine{}.LockDatabase(p.ctx(), tenancy.Database{DSN: p.dsn(p.adm, name) + "&LOCK_TIMEOUT=7&options=-c%20statement_timeout%3D8"},
		migrate.Lock{StatementTimeout: 1500 * time.Microsecond * 1000})
	p.ok(err)
	defer x.Close()
	for setting, want := range map[string]string{
		"lock_timeout": "0", "statement_timeout": "1500ms", "idle_in_transaction_session_timeout": "1min",
		"default_transaction_read_only": "off", "synchronous_commit": "on", "idle_session_timeout": "0",
	} {
		var got string
		err := x.DB.QueryRow("SELECT coalesce(current_setting($1, true), '0')", setting).Scan(&got)
		if err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", setting, got, err, want)
		}
	}
}

func TestLockTimeout(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	x := p.locked(name, migrate.Lock{LockTimeout: 20 * time.Millisecond})
	p.run(x.DB, "CREATE TABLE items (id int)")
	holder := p.pg.Conn(t, name)
	_, err := holder.Exec(p.ctx(), "BEGIN; LOCK TABLE items")
	p.ok(err)
	begin := time.Now()
	_, err = x.DB.Exec("ALTER TABLE items ADD COLUMN word text")
	if code(err) != "55P03" || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %v, want 55P03", err, time.Since(begin))
	}
}

// Whoever waits for the lock has no snapshot that an index's making waits for.
func TestConcurrentIndexWhileAnotherWaits(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	x := p.locked(name, migrate.Lock{})
	p.run(x.DB, "CREATE TABLE items (id int)")
	ctx, cancel := context.WithCancel(p.ctx())
	waited := make(chan error)
	go func() {
		_, err := p.s.LockDatabase(ctx, name, migrate.Lock{})
		waited <- err
	}()
	p.eventually("the other one waits", func() bool { return p.named(name, waitingName) == 1 })
	p.run(x.DB, "CREATE INDEX CONCURRENTLY items_id ON items (id)")
	cancel()
	p.is(<-waited, context.Canceled)
}

func TestLockIdentity(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	mine := tenancy.Identity{UID: "u'1", Generation: 3}
	_, err := p.lockAt(name, migrate.Lock{Identity: mine})
	p.is(err, tenancy.ErrWrongDatabase)
	p.fails(err, "does not say whose it is")

	x := p.locked(name, migrate.Lock{})
	p.run(x.DB, "CREATE TABLE _tenant_meta (mine bool)")
	p.ok(x.Close())
	_, err = p.lockAt(name, migrate.Lock{Identity: mine})
	p.is(err, tenancy.ErrWrongDatabase)

	x = p.locked(name, migrate.Lock{})
	p.run(x.DB, "DROP TABLE _tenant_meta; CREATE TABLE _tenant_meta (uid text, generation bigint)")
	p.ok(x.Close())
	_, err = p.lockAt(name, migrate.Lock{Identity: mine})
	p.is(err, tenancy.ErrWrongDatabase)

	x = p.locked(name, migrate.Lock{})
	p.run(x.DB, "INSERT INTO _tenant_meta VALUES ('u''1', 3)")
	p.ok(x.Close())
	p.ok(p.locked(name, migrate.Lock{Identity: mine}).Close())
	p.ok(p.locked(name, migrate.Lock{Identity: mine, ReadOnly: true}).Close())
	for _, wrong := range []tenancy.Identity{{UID: "u2", Generation: 3}, {UID: "u'1", Generation: 4}, {UID: "u'1"}} {
		for _, readOnly := range []bool{false, true} {
			_, err = p.lockAt(name, migrate.Lock{Identity: wrong, ReadOnly: readOnly})
			p.is(err, tenancy.ErrWrongDatabase)
			p.fails(err, "says u'1/3, want "+wrong.String())
		}
	}
	// Nobody has kept the lock.
	p.locked(name, migrate.Lock{Wait: 10 * time.Second})
}

func TestLockReadOnly(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	x := p.locked(name, migrate.Lock{})
	p.run(x.DB, "CREATE TABLE items (id int)")
	// It waits for nobody.
	for _, attrs := range []string{"any", "read-write"} {
		r, err := Engine{}.LockDatabase(p.ctx(), tenancy.Database{DSN: p.dsn(p.adm, name) + "&target_session_attrs=" + attrs}, migrate.Lock{ReadOnly: true})
		p.ok(err)
		p.run(r.DB, "SELECT count(*) FROM items")
		if _, err := r.DB.Exec("INSERT INTO items VALUES (1)"); code(err) != "25006" {
			t.Errorf("a write said %v", err)
		}
		p.ok(r.Close())
	}
	if n := p.named(name, migrationName); n != 1 {
		p.eventually("the readers' connections end", func() bool { return p.named(name, migrationName) == 1 })
	}
}

func TestLockErrors(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	x, err := Engine{}.LockDatabase(p.ctx(), tenancy.Database{DSN: p.pg.DSN(name)}, migrate.Lock{})
	p.ok(err)
	_, err = p.s.LockDatabase(p.ctx(), name, migrate.Lock{Steal: true})
	p.fails(err, "those of a superuser only a superuser can end")
	_, err = p.s.LockDatabase(p.ctx(), name, migrate.Lock{Wait: time.Millisecond})
	p.is(err, migrate.ErrLocked)
	r, err := p.s.LockDatabase(p.ctx(), name, migrate.Lock{Steal: true, ReadOnly: true}) // steals nothing
	p.ok(err)
	p.ok(r.Close())
	p.ok(x.Close())

	p.exec("ALTER DATABASE " + quote(name) + " ALLOW_CONNECTIONS false")
	_, err = p.s.LockDatabase(p.ctx(), name, migrate.Lock{})
	p.is(err, migrate.ErrFenced)
	if f := p.s.Classify(err); f != tenancy.FaultTenant {
		t.Errorf("it is classified as %v", f)
	}
	_, err = p.lockAt("nowhere", migrate.Lock{})
	if code(err) != "3D000" || errors.Is(err, migrate.ErrFenced) {
		t.Error(err)
	}
	noSecret(t, err)
	_, err = p.s.LockDatabase(p.ctx(), "postgres", migrate.Lock{})
	p.fails(err, "maintenance")
	_, err = Engine{}.LockDatabase(p.ctx(), tenancy.Database{DSN: "postgres://u:" + secret + "@h:x/d"}, migrate.Lock{})
	p.fails(err, "can't be parsed")
	_, err = Engine{}.LockDatabase(p.ctx(), tenancy.Database{Connector: other{}}, migrate.Lock{})
	p.fails(err, "use one of Engine.Connector")
	_, err = Engine{}.LockDatabase(p.ctx(), tenancy.Database{DSN: "x", Connector: other{}}, migrate.Lock{})
	p.fails(err, "a DSN and a Connector")
	foreign := sql.OpenDB(other{})
	defer foreign.Close()
	_, err = Engine{}.LockMain(p.ctx(), foreign, migrate.Lock{})
	p.fails(err, "open it with tenancypg.Engine")
	_, err = Engine{}.Inspect(p.ctx(), foreign)
	p.fails(err, "open it with tenancypg.Engine")

	cfg := p.cfg
	cfg.Admin = ""
	s, err := NewServer(cfg)
	p.ok(err)
	defer s.Close()
	_, err = s.LockDatabase(p.ctx(), name, migrate.Lock{})
	if err == nil || !strings.Contains(err.Error(), "Admin is empty") {
		t.Error(err)
	}
}
