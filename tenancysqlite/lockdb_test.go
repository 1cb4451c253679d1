package tenancysqlite

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// brief is a wait that ends in a test.
const brief = 30 * time.Millisecond

func lockedAt(t testing.TB, e Engine, dsn string, l migrate.Lock) *migrate.Exclusive {
	t.Helper()
	x, err := e.LockDatabase(t.Context(), tenancy.Database{DSN: dsn}, l)
	must(t, err)
	return x
}

func run(t testing.TB, db *sql.DB, query string) {
	t.Helper()
	_, err := db.Exec(query)
	must(t, err)
}

func is(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("the error is %v, want %v", err, target)
	}
}

func TestLockExcludes(t *testing.T) {
	dir, s, sess := opened(t)
	must(t, sess.Close())
	before := files(t, dir)
	must(t, os.Symlink("a", filepath.Join(dir, "link")))
	d, err := s.Database("a")
	must(t, err)
	main := app(t, s, "a")
	tries := map[string]func(context.Context, migrate.Lock) (*migrate.Exclusive, error){
		"path": func(ctx context.Context, l migrate.Lock) (*migrate.Exclusive, error) {
			return Engine{}.LockDatabase(ctx, tenancy.Database{DSN: filepath.Join(dir, "a")}, l)
		},
		"link": func(ctx context.Context, l migrate.Lock) (*migrate.Exclusive, error) {
			return Engine{Dir: dir}.LockDatabase(ctx, tenancy.Database{DSN: "link"}, l)
		},
		"connector": func(ctx context.Context, l migrate.Lock) (*migrate.Exclusive, error) {
			return Engine{}.LockDatabase(ctx, d, l)
		},
		"main": func(ctx context.Context, l migrate.Lock) (*migrate.Exclusive, error) { return s.LockMain(ctx, main, l) },
		"server": func(ctx context.Context, l migrate.Lock) (*migrate.Exclusive, error) {
			return s.LockDatabase(ctx, "a", l)
		},
		"session": func(ctx context.Context, l migrate.Lock) (*migrate.Exclusive, error) {
			if l.Wait > 0 {
				bounded, cancel := context.WithTimeout(ctx, l.Wait)
				defer cancel()
				ctx = bounded
			}
			sess, err := s.Session(ctx, "a", l.Steal)
			if errors.Is(err, context.DeadlineExceeded) {
				err = migrate.ErrLocked // in its words
			}
			if err != nil {
				return nil, err
			}
			return &migrate.Exclusive{Close: sess.Close}, nil
		},
	}
	for holder, lock := range tries {
		x, err := lock(t.Context(), migrate.Lock{})
		must(t, err)
		for other, try := range tries {
			if holder == other {
				continue
			}
			_, err := try(t.Context(), migrate.Lock{Wait: time.Millisecond})
			if !errors.Is(err, migrate.ErrLocked) {
				t.Errorf("%s beside %s: %v", other, holder, err)
			}
			noPath(t, err, dir)
		}
		must(t, x.Close())
	}
	must(t, main.Ping(), main.Close()) // LockMain has not closed it
	must(t, os.Remove(filepath.Join(dir, "link")))
	if got := files(t, dir); !slices.Equal(got, before) {
		t.Errorf("there is %q, was %q", got, before)
	}
}

func TestLockExcludesOtherProcesses(t *testing.T) {
	dir, s, sess := opened(t)
	must(t, sess.Close())
	kill := helper(t, "migrate", dir)
	_, err := s.LockDatabase(t.Context(), "a", migrate.Lock{Wait: brief})
	is(t, err, migrate.ErrLocked)
	if f := (Engine{}).Classify(err); f != tenancy.FaultNone {
		t.Errorf("it is classified as %v", f)
	}
	_, err = s.LockDatabase(t.Context(), "a", migrate.Lock{Wait: brief, Steal: true})
	is(t, err, migrate.ErrLocked)
	if !strings.Contains(err.Error(), "end the process that has it") {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), brief)
	defer cancel()
	_, err = s.LockDatabase(ctx, "a", migrate.Lock{})
	is(t, err, context.DeadlineExceeded)
	r, err := s.LockDatabase(t.Context(), "a", migrate.Lock{ReadOnly: true}) // waits for nobody
	must(t, err, r.Close())

	kill()
	x, err := s.LockDatabase(t.Context(), "a", migrate.Lock{})
	must(t, err, x.Close())
}

func TestLockTimeouts(t *testing.T) {
	e, dsn := created(t)
	for _, tt := range []struct {
		d    time.Duration
		want int
	}{{0, 1<<31 - 1}, {time.Microsecond, 1}, {time.Second, 1000}} {
		x := lockedAt(t, e, dsn+"?_pragma=busy_timeout(77)&_pragma=cache_size(-777)", migrate.Lock{LockTimeout: tt.d})
		var busy, cache int
		must(t, x.DB.QueryRow("SELECT timeout, cache_size FROM pragma_busy_timeout, pragma_cache_size").Scan(&busy, &cache))
		if busy != tt.want || cache != -777 {
			t.Errorf("%v: busy_timeout is %d, cache_size %d", tt.d, busy, cache)
		}
		if n := x.DB.Stats().MaxOpenConnections; n != 2 {
			t.Errorf("%d connections", n)
		}
		must(t, x.Close())
	}
	x := lockedAt(t, e, dsn, migrate.Lock{LockTimeout: time.Millisecond})
	defer x.Close()
	tx, err := open(t, e, dsn).Begin()
	must(t, err)
	defer func() { _ = tx.Rollback() }()
	if _, err := x.DB.Exec("CREATE TABLE a (b)"); !hasCode(err, sqlite3.SQLITE_BUSY) {
		t.Errorf("beside a writer: %v", err)
	}
}

func TestLockIdentity(t *testing.T) {
	mine := tenancy.Identity{UID: "u1", Generation: 1}
	dir, s, sess := opened(t)
	must(t, sess.Mark(t.Context(), meta("u1", 1)), sess.Close())
	e := Engine{Dir: dir}
	must(t, lockedAt(t, e, "a", migrate.Lock{Identity: mine}).Close())
	main := app(t, s, "a")
	for _, readOnly := range []bool{false, true} {
		l := migrate.Lock{Identity: tenancy.Identity{UID: "u1", Generation: 2}, ReadOnly: readOnly}
		_, err := s.LockDatabase(t.Context(), "a", l)
		is(t, err, tenancy.ErrWrongDatabase)
		_, err = s.LockMain(t.Context(), main, l)
		is(t, err, tenancy.ErrWrongDatabase)
		noPath(t, err, dir)
	}
	x, err := s.LockMain(t.Context(), main, migrate.Lock{Identity: mine})
	must(t, err, x.Close(), main.Close())

	// Nothing is written: not even that the file is in WAL mode.
	must(t, e.Create(t.Context(), "other"))
	db := open(t, e, "other?_pragma=journal_mode(DELETE)")
	run(t, db, "CREATE TABLE things (id)")
	must(t, db.Close())
	was, err := os.ReadFile(filepath.Join(dir, "other"))
	must(t, err)
	_, err = e.LockDatabase(t.Context(), tenancy.Database{DSN: "other"}, migrate.Lock{Identity: mine})
	is(t, err, tenancy.ErrWrongDatabase)
	now, err := os.ReadFile(filepath.Join(dir, "other"))
	must(t, err)
	if !slices.Equal(was, now) {
		t.Error("the file was changed")
	}
}

func TestLockReadOnly(t *testing.T) {
	e, dsn := created(t)
	x := lockedAt(t, e, dsn, migrate.Lock{})
	run(t, x.DB, "CREATE TABLE items (id)")
	r := lockedAt(t, e, dsn, migrate.Lock{ReadOnly: true})
	run(t, r.DB, "SELECT * FROM items")
	if _, err := r.DB.Exec("INSERT INTO items VALUES (1)"); !hasCode(err, sqlite3.SQLITE_READONLY) {
		t.Errorf("a write said %v", err)
	}
	must(t, r.Close(), x.Close())
}

func TestLockOfWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, dir)
	for _, l := range []migrate.Lock{{}, {ReadOnly: true}} {
		_, err := s.LockDatabase(t.Context(), "gone", l)
		is(t, err, fs.ErrNotExist)
		_, err = Engine{Dir: dir}.LockDatabase(t.Context(), tenancy.Database{DSN: "gone"}, l)
		is(t, err, fs.ErrNotExist)
		noPath(t, err, dir)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("there is %q", got)
	}
	if _, err := s.LockDatabase(t.Context(), "../x", migrate.Lock{}); err == nil {
		t.Error("a name outside was taken")
	}
}

// A database that is closed to the application stays so, and is migrated.
func TestLockFenced(t *testing.T) {
	_, s, sess := opened(t)
	must(t, sess.Fence(t.Context(), 0), sess.Close())
	x, err := s.LockDatabase(t.Context(), "a", migrate.Lock{})
	must(t, err)
	run(t, x.DB, "CREATE TABLE more (id)")
	must(t, x.Close())
	if err := app(t, s, "a").Ping(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the application: %v", err)
	}
	must(t, begin(t, s, "a").Open(t.Context()))
}

func TestLockMain(t *testing.T) {
	e, dsn := created(t)
	db := open(t, e, dsn+"?_pragma=journal_mode(DELETE)&_pragma=foreign_keys(0)")
	x, err := e.LockMain(t.Context(), db, migrate.Lock{})
	must(t, err)
	var journal string
	var foreignKeys bool
	must(t, x.DB.QueryRow("SELECT journal_mode, foreign_keys FROM pragma_journal_mode, pragma_foreign_keys").Scan(&journal, &foreignKeys))
	if x.DB == db || journal != "delete" || foreignKeys {
		t.Errorf("journal_mode is %s, foreign_keys %v", journal, foreignKeys)
	}
	run(t, x.DB, "CREATE TABLE items (id)")
	must(t, x.Close())
	run(t, db, "INSERT INTO items VALUES (1)")

	memory, err := sql.Open("sqlite", ":memory:")
	must(t, err)
	defer memory.Close()
	x, err = e.LockMain(t.Context(), memory, migrate.Lock{})
	must(t, err)
	if x.DB != memory {
		t.Error("it is another database")
	}
	must(t, x.Close(), memory.Ping())
	_, err = e.LockMain(t.Context(), memory, migrate.Lock{Identity: tenancy.Identity{UID: "u"}})
	is(t, err, tenancy.ErrWrongDatabase)
}
