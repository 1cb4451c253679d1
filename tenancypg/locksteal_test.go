package tenancypg

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRow(query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// lostPool asserts that the pool does nothing any more.
func (p *place) lostPool(db *sql.DB) {
	p.t.Helper()
	for range 3 {
		_, err := db.ExecContext(p.ctx(), "INSERT INTO items VALUES (99)")
		if err == nil {
			p.t.Fatal("a statement ran without the lock")
		}
		noSecret(p.t, err)
	}
	_, err := db.Conn(p.ctx())
	p.is(err, errSessionLost)
	if f := (Engine{}).Classify(err); f != tenancy.FaultServer {
		p.t.Errorf("it is classified as %v", f)
	}
}

func TestLockStolen(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	zombie := p.locked(name, migrate.Lock{})
	p.run(zombie.DB, "CREATE TABLE items (id int)")
	tx, err := zombie.DB.Begin()
	p.ok(err)
	_, err = tx.Exec("INSERT INTO items VALUES (1)")
	p.ok(err)

	heir := p.locked(name, migrate.Lock{Steal: true, Wait: 10 * time.Second})
	if err := tx.Commit(); err == nil {
		t.Error("the zombie has committed")
	}
	p.lostPool(zombie.DB)
	if n := count(t, heir.DB, "SELECT count(*) FROM items"); n != 0 {
		t.Errorf("%d rows of the zombie's are there", n)
	}
	// The zombie's end does not end the heir.
	p.ok(zombie.Close())
	p.run(heir.DB, "INSERT INTO items VALUES (2)")
}

// A statement that goes on does so on either of the two connections.
func TestLockStolenInAStatement(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	setup := p.locked(name, migrate.Lock{})
	p.run(setup.DB, "CREATE TABLE items (id int)")
	p.ok(setup.Close())
	for _, second := range []bool{false, true} {
		for _, killed := range []bool{false, true} {
			if killed && !second {
				continue
			}
			t.Run(fmt.Sprint("second=", second, " killed=", killed), func(t *testing.T) {
				zombie := p.locked(name, migrate.Lock{Wait: 10 * time.Second})
				first, err := zombie.DB.Conn(p.ctx())
				p.ok(err)
				defer first.Close()
				busy := first
				if second {
					busy, err = zombie.DB.Conn(p.ctx())
					p.ok(err)
					defer busy.Close()
				}
				ended := make(chan error, 1)
				go func() {
					_, err := busy.ExecContext(context.Background(), "INSERT INTO items SELECT 1 FROM pg_sleep(60)")
					ended <- err
				}()
				p.eventually("it sleeps", func() bool { return p.sleeping(name) == 1 })
				l := migrate.Lock{Steal: true, Wait: 10 * time.Second}
				if killed {
					// The lock is lost, the statement goes on, and whoever
					// comes next ends it, without stealing anything.
					l.Steal = false
					p.kill(first)
				}
				heir := p.locked(name, l)
				if n := p.sleeping(name); n != 0 {
					t.Error("the statement goes on beside the heir")
				}
				if err := <-ended; err == nil {
					t.Error("the statement has succeeded")
				}
				if n := count(t, heir.DB, "SELECT count(*) FROM items"); n != 0 {
					t.Errorf("%d rows", n)
				}
				p.ok(heir.Close())
			})
		}
	}
}

func (p *place) sleeping(name string) (n int) {
	p.t.Helper()
	p.ok(p.root.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event = 'PgSleep'", name).Scan(&n))
	return n
}

// kill ends a connection's backend.
func (p *place) kill(c *sql.Conn) {
	p.t.Helper()
	var pid uint32
	p.ok(Raw(c, func(pc *pgx.Conn) error { pid = pc.PgConn().PID(); return nil }))
	p.exec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
	p.eventually("the backend is gone", func() bool {
		var n int
		p.ok(p.root.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid).Scan(&n))
		return n == 0
	})
}

// database/sql dials anew for a connection that broke.
func TestLockLost(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	x := p.locked(name, migrate.Lock{})
	p.run(x.DB, "CREATE TABLE items (id int)")
	c, err := x.DB.Conn(p.ctx())
	p.ok(err)
	p.kill(c)
	p.ok(c.Close()) // idle in the pool, and nobody knows yet
	p.lostPool(x.DB)

	// A second connection is made while the first is there, and not used or
	// made once it is not.
	x = p.locked(name, migrate.Lock{Wait: 10 * time.Second})
	first, err := x.DB.Conn(p.ctx())
	p.ok(err)
	second, err := x.DB.Conn(p.ctx())
	p.ok(err)
	_, err = second.ExecContext(p.ctx(), "CREATE TABLE things (id int)")
	p.ok(err)
	p.ok(second.Close())
	p.kill(first)
	if err := first.PingContext(p.ctx()); err == nil {
		t.Error("the dead connection answers")
	}
	p.lostPool(x.DB)

	x = p.locked(name, migrate.Lock{Wait: 10 * time.Second})
	first, err = x.DB.Conn(p.ctx())
	p.ok(err)
	defer first.Close()
	p.kill(first)
	_, err = x.DB.Conn(p.ctx()) // the pool has not seen that it is dead
	p.is(err, errSessionLost)
}

// Who waits is not ended by who steals, and is the next.
func TestLockStealSparesWaiters(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	p.locked(name, migrate.Lock{})
	type got struct {
		x   *migrate.Exclusive
		err error
	}
	waiter := make(chan got)
	go func() {
		x, err := p.s.LockDatabase(p.ctx(), name, migrate.Lock{})
		waiter <- got{x, err}
	}()
	p.eventually("it waits", func() bool { return p.named(name, waitingName) == 1 })
	thief := make(chan got)
	go func() {
		x, err := p.s.LockDatabase(p.ctx(), name, migrate.Lock{Steal: true})
		thief <- got{x, err}
	}()
	// In either order.
	for range 2 {
		var g got
		select {
		case g = <-waiter:
		case g = <-thief:
		}
		p.ok(g.err)
		p.run(g.x.DB, "SELECT 1")
		p.ok(g.x.Close())
	}
}

// What a session of the catalog has left is ended as well.
func TestLockStealEndsSessions(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	old := p.session(name)
	db, err := old.DB(p.ctx())
	p.ok(err)
	pid := count(t, db, "SELECT pg_backend_pid()")
	p.ok(p.locked(name, migrate.Lock{}).Close())
	if now := count(t, db, "SELECT pg_backend_pid()"); now != pid {
		t.Error("it was ended by somebody who steals nothing")
	}
	p.locked(name, migrate.Lock{Steal: true})
	var n int
	p.ok(p.root.QueryRow(p.ctx(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid).Scan(&n))
	if n != 0 {
		t.Error("the session's connection is there")
	}

	// A session, for a dump say, leaves a migration alone, and one that steals
	// ends it.
	x := p.locked(name, migrate.Lock{Wait: 10 * time.Second, Steal: true})
	p.ok(old.Close())
	dumping := p.session(name)
	p.run(x.DB, "SELECT 1")
	p.ok(dumping.Close())
	thief, err := p.s.Session(p.ctx(), name, true)
	p.ok(err)
	p.lostPool(x.DB)
	p.ok(thief.Close())
}

// Many take the lock, some by stealing it, and count up in two statements: no
// step is lost, whatever happens to whom.
func TestLockStress(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	x := p.locked(name, migrate.Lock{})
	p.run(x.DB, "CREATE TABLE steps (n int); INSERT INTO steps VALUES (0)")
	p.ok(x.Close())
	var done, unknown atomic.Int32
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 8 {
				x, err := p.s.LockDatabase(p.ctx(), name, migrate.Lock{Steal: (worker+i)%4 == 0})
				if err != nil {
					// Stolen before it was told that it has it.
					if (Engine{}).Classify(err) != tenancy.FaultServer {
						t.Error(err)
					}
					continue
				}
				var n int
				if x.DB.QueryRow("SELECT n FROM steps").Scan(&n) == nil {
					// On whichever connection.
					if c, err := x.DB.Conn(p.ctx()); err == nil {
						_, err = x.DB.Exec("UPDATE steps SET n = $1", n+1)
						if err == nil {
							done.Add(1)
						} else {
							unknown.Add(1)
						}
						_ = c.Close()
					}
				}
				_ = x.Close()
			}
		})
	}
	all.Wait()
	x = p.locked(name, migrate.Lock{Wait: 10 * time.Second})
	n := int32(count(t, x.DB, "SELECT n FROM steps"))
	if d, u := done.Load(), unknown.Load(); n < d || n > d+u || d == 0 {
		t.Errorf("%d steps, of which %d are known and %d may be", n, d, u)
	}
	t.Logf("%d steps, %d refused", done.Load(), unknown.Load())
}

// A ctx that ends cancels a statement, and the lock stays.
func TestLockSurvivesACancelledStatement(t *testing.T) {
	p := newPlace(t, apart)
	name := p.database()
	x := p.locked(name, migrate.Lock{})
	ctx, cancel := context.WithCancel(p.ctx())
	ended := make(chan error, 1)
	go func() {
		_, err := x.DB.ExecContext(ctx, "SELECT pg_sleep(60)")
		ended <- err
	}()
	p.eventually("it sleeps", func() bool { return p.sleeping(name) == 1 })
	cancel()
	if err := <-ended; err == nil {
		t.Error("it was not cancelled")
	}
	p.run(x.DB, "SELECT 1")
	_, err := p.lockAt(name, migrate.Lock{Wait: time.Millisecond})
	p.is(err, migrate.ErrLocked)
}
