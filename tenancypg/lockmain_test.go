package tenancypg

import (
	"database/sql"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// The main database is whoever's pool of pgx's; what is opened beside it is
// another one.
func TestLockMain(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	dsn := p.dsn(p.adm, name)
	c, err := Engine{}.Connector(dsn)
	p.ok(err)
	asked := 0
	e := Engine{BeforeConnect: countCalls(&asked)}
	counted, err := e.Connector(dsn)
	p.ok(err)
	g, err := gorm.Open(postgres.Open(dsn), &gorm.Config{})
	p.ok(err)
	fromGORM, err := g.DB()
	p.ok(err)
	for what, db := range map[string]*sql.DB{
		"ours": sql.OpenDB(c), "wrapped": sql.OpenDB(wrapper{c, 2}), "credentials": sql.OpenDB(counted), "gorm's": fromGORM,
	} {
		t.Run(what, func(t *testing.T) {
			db.SetMaxOpenConns(1)
			defer db.Close()
			x, err := p.s.LockMain(p.ctx(), db, migrate.Lock{})
			p.ok(err)
			_, err = p.s.LockMain(p.ctx(), db, migrate.Lock{Wait: time.Millisecond})
			p.is(err, migrate.ErrLocked)
			_, err = p.lockAt(name, migrate.Lock{Wait: time.Millisecond})
			p.is(err, migrate.ErrLocked)
			p.run(x.DB, "CREATE TABLE items (id int)")
			p.run(x.DB, "DROP TABLE items")
			p.ok(x.Close())
			p.run(db, "SELECT 1") // it is still open
			x, err = p.s.LockMain(p.ctx(), db, migrate.Lock{Wait: 10 * time.Second})
			p.ok(err)
			p.ok(x.Close())
		})
	}
	if asked < 3 {
		t.Errorf("BeforeConnect was called %d times", asked)
	}
	d, err := p.s.Database(name)
	p.ok(err)
	x, err := Engine{}.LockDatabase(p.ctx(), d, migrate.Lock{Wait: 10 * time.Second})
	p.ok(err)
	var user string
	p.ok(x.DB.QueryRow("SELECT current_user").Scan(&user))
	if user != p.app {
		t.Errorf("the user is %s, not the Connector's", user)
	}
	p.ok(x.Close())
}

// Locks and settings through a pooler hold nothing, or stay with its
// connections: none is made there.
func TestLockThroughAPooler(t *testing.T) {
	clearEnv(t)
	pg := pgtest.Shared(t)
	const ignore = "extra_float_digits,lock_timeout,statement_timeout,idle_in_transaction_session_timeout,default_transaction_read_only,synchronous_commit"
	p := &place{t: t, pg: pg, root: pg.Admin(t)}
	for mode, both := range map[string][]bool{"session": {true}, "transaction": {false, true}} {
		for _, ignored := range both {
			name := pg.CreateDatabase(t)
			opts := []pgtest.BouncerOption{pgtest.PoolMode(mode)}
			if ignored {
				opts = append(opts, pgtest.BouncerSetting("ignore_startup_parameters", ignore))
			}
			b := pgtest.StartBouncer(t, pg, opts...)
			for _, readOnly := range []bool{false, true} {
				_, err := Engine{}.LockDatabase(p.ctx(), tenancy.Database{DSN: b.DSN(name)}, migrate.Lock{ReadOnly: readOnly})
				p.is(err, migrate.ErrPooler)
				p.fails(err, avoidPooler)
			}
			c, err := Engine{PreferSimpleProtocol: true}.Connector(b.DSN(name))
			p.ok(err)
			main := sql.OpenDB(c)
			_, err = Engine{}.LockMain(p.ctx(), main, migrate.Lock{})
			p.is(err, migrate.ErrPooler)
			var left string
			p.ok(main.QueryRow(`SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database =
				(SELECT oid FROM pg_database WHERE datname = current_database())) || current_setting('default_transaction_read_only')`).Scan(&left))
			if left != "0off" {
				t.Errorf("%s: the pooler's connection has kept %s", mode, left)
			}
			p.ok(main.Close())
			b.Stop()
			p.ok(func() error {
				x, err := Engine{}.LockDatabase(p.ctx(), tenancy.Database{DSN: pg.DSN(name)}, migrate.Lock{Wait: 10 * time.Second})
				if err == nil {
					err = x.Close()
				}
				return err
			}())
		}
	}
}

// One connection, and on it one query.
func TestLockCost(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	p.ok(func() error {
		ses := p.session(name)
		defer ses.Close()
		return ses.Mark(p.ctx(), meta("u1", 1))
	}())
	p.eventually("the session's connection has ended", func() bool { return p.sessions(name) == 0 })
	w := &wire{}
	e := Engine{Configure: w.tap}
	x, err := e.LockDatabase(p.ctx(), tenancy.Database{DSN: p.dsn(p.adm, name)},
		migrate.Lock{Identity: tenancy.Identity{UID: "u1", Generation: 1}, LockTimeout: time.Second})
	p.ok(err)
	c, err := x.DB.Conn(p.ctx()) // as goose does
	p.ok(err)
	var pid uint32
	p.ok(Raw(c, func(pc *pgx.Conn) error { pid = pc.PgConn().PID(); return nil }))
	p.ok(c.Close())
	if stats := x.DB.Stats(); stats.OpenConnections != 1 || stats.MaxOpenConnections != 2 {
		t.Errorf("the pool has %+v", stats)
	}
	var locker uint32
	p.ok(p.root.QueryRow(p.ctx(), "SELECT pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE d.datname = $1 AND locktype = 'advisory'", name).Scan(&locker))
	if pid != locker {
		t.Error("the lock is on another connection")
	}
	p.ok(x.Close())
	if dialed, ready := w.counts(); dialed != 1 || ready != 2 {
		t.Errorf("%d connections and %d round trips, want 1 and 2, with that of the login", dialed, ready)
	}
}
