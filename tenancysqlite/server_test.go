package tenancysqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

func newServer(t testing.TB, dir string) *Server {
	t.Helper()
	s, err := NewServer(ServerConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func begin(t testing.TB, s *Server, name string) catalog.Session {
	t.Helper()
	sess, err := s.Session(t.Context(), name, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sess.Close() })
	return sess
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// app returns the application's pool of a database.
func app(t testing.TB, s *Server, name string) *sql.DB {
	t.Helper()
	d, err := s.Database(name)
	must(t, err)
	db := sql.OpenDB(d.Connector)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func adminExec(t testing.TB, sess catalog.Session, query string) {
	t.Helper()
	db, err := sess.DB(t.Context())
	must(t, err)
	_, err = db.Exec(query)
	must(t, err, db.Close())
}

func count(t testing.TB, sess catalog.Session, query string) (n int) {
	t.Helper()
	db, err := sess.DB(t.Context())
	must(t, err)
	must(t, db.QueryRow(query).Scan(&n), db.Close())
	return n
}

func meta(uid string, generation int64) catalog.Meta {
	return catalog.Meta{Catalog: "c1", Identity: tenancy.Identity{UID: uid, Generation: generation}}
}

func TestLifeTwice(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := newServer(t, dir)
	sess := begin(t, s, "t_acme.db")
	twice := func(what string, do func() error) {
		t.Helper()
		for range 2 {
			if err := do(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	twice("drop", func() error { return sess.Drop(ctx) })
	if there, err := sess.Exists(ctx); there || err != nil {
		t.Fatal(there, err)
	}
	twice("create", func() error { return sess.Create(ctx, "") })
	pool := app(t, s, "t_acme.db")
	if err := pool.Ping(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before Open: %v", err)
	}
	twice("mark", func() error { return sess.Mark(ctx, meta("u1", 1)) })
	adminExec(t, sess, "CREATE TABLE a (id integer)")
	twice("open", func() error { return sess.Open(ctx) })
	_, err := pool.Exec("INSERT INTO a VALUES (1)")
	must(t, err, pool.Close())
	if m, err := sess.Owner(ctx); err != nil || m != meta("u1", 1) {
		t.Errorf("owner %+v, %v", m, err)
	}
	twice("fence", func() error { return sess.Fence(ctx, 0) })
	if err := app(t, s, "t_acme.db").Ping(); err == nil {
		t.Error("a fenced database can be opened")
	}
	if n := count(t, sess, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows", n)
	}
	twice("seal", func() error { return sess.Seal(ctx) })
	if n := count(t, sess, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows in the template", n)
	}
	if err := sess.Open(ctx); err == nil {
		t.Error("a template could be opened")
	}
	twice("close", sess.Close)
	if err := sess.Drop(ctx); err == nil {
		t.Error("Drop after Close")
	}

	found, err := s.Databases(ctx)
	if err != nil || len(found) != 1 || found[0] != (catalog.Found{Name: "t_acme.db", Template: true}) {
		t.Errorf("found %+v, %v", found, err)
	}
	copied := begin(t, s, "copy")
	must(t, copied.Create(ctx, "t_acme.db"), copied.Open(ctx))
	if m, err := copied.Owner(ctx); err != nil || m != (catalog.Meta{}) {
		t.Errorf("a copy's owner is %+v, %v", m, err)
	}
	if n := count(t, copied, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows in the copy", n)
	}
	if err := begin(t, s, "other").Create(ctx, "copy"); !errors.Is(err, catalog.ErrNoTemplate) {
		t.Errorf("from what is not sealed: %v", err)
	}
	must(t, copied.Drop(ctx), copied.Close())
	sess = begin(t, s, "t_acme.db")
	twice("drop", func() error { return sess.Drop(ctx) })
	must(t, sess.Close())
}

func TestMarkRules(t *testing.T) {
	ctx := t.Context()
	sess := begin(t, newServer(t, t.TempDir()), "a")
	must(t, sess.Create(ctx, ""))
	if m, err := sess.Owner(ctx); err != nil || m != (catalog.Meta{}) {
		t.Errorf("%+v, %v", m, err)
	}
	must(t, sess.Mark(ctx, meta("u1", 3)), sess.Mark(ctx, meta("u1", 4)))
	if err := sess.Mark(ctx, meta("u1", 3)); err == nil || errors.Is(err, catalog.ErrForeign) {
		t.Errorf("going back: %v", err)
	}
	foreign := meta("u1", 5)
	foreign.Catalog = "c2"
	wrong := meta("u2", 5)
	wrong.Replaces = "u9"
	for _, m := range []catalog.Meta{meta("u2", 5), foreign, wrong} {
		if err := sess.Mark(ctx, m); !errors.Is(err, catalog.ErrForeign) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	if m, _ := sess.Owner(ctx); m != meta("u1", 4) {
		t.Errorf("it is now %+v", m)
	}
	takes := meta("u2", 1)
	takes.Replaces = "u1"
	any := foreign
	any.UID, any.Replaces = "u3", "*"
	must(t, sess.Mark(ctx, takes), sess.Mark(ctx, any))
	if n := count(t, sess, "SELECT count(*) FROM _tenant_meta"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestHostileDatabaseNames(t *testing.T) {
	outer, ctx := t.TempDir(), t.Context()
	s := newServer(t, filepath.Join(outer, "in"))
	before := files(t, outer)
	for _, name := range []string{"", ".", "..", "../x", "a/../../b", "a/../b", "a/b", "/abs", "x\x00y", "x-wal", "x-SHM", "x-journal",
		".creating-x", ".fenced-x", ".LOCK-x", ".template-x", ".dropped-x", ":memory:", strings.Repeat("n", 300)} {
		if _, err := s.Database(name); err == nil {
			t.Errorf("Database(%q)", name)
		}
		if _, err := s.Session(ctx, name, false); err == nil {
			t.Errorf("Session(%q)", name)
		}
		if name != "" {
			if err := begin(t, s, "ok").Close(); err != nil {
				t.Error(err)
			}
			sess := begin(t, s, "ok")
			if err := sess.Create(ctx, name); err == nil {
				t.Errorf("Create from %q", name)
			}
			must(t, sess.Close())
		}
	}
	if got := files(t, outer); !slices.Equal(got, before) {
		t.Errorf("there is now %q", got)
	}
	for _, name := range []string{"a#b", "a?mode=memory", "a", "100%", "'q\"", "new\nline", "a b", strings.Repeat("n", 63)} {
		sess := begin(t, s, name)
		must(t, sess.Create(ctx, ""), sess.Open(ctx))
		_, err := app(t, s, name).Exec("CREATE TABLE mine (id integer)")
		must(t, err, sess.Close())
		if _, err := os.Lstat(filepath.Join(outer, "in", name)); err != nil {
			t.Error(err)
		}
	}
}

func TestCreateRaceOfServers(t *testing.T) {
	dir := t.TempDir()
	servers := []*Server{newServer(t, dir), newServer(t, dir)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			sess, err := servers[i%2].Session(t.Context(), "a", false)
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(sess.Create(t.Context(), ""), sess.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := files(t, dir); !slices.Equal(got, []string{".fenced-a"}) {
		t.Errorf("there is %q", got)
	}
}

func TestLeftovers(t *testing.T) {
	for _, left := range []string{".creating-a", ".creating-a-wal", ".dropped-a", "a-wal", "a-shm", "a-journal", ".fenced-a-journal", ".lock-a"} {
		dir, ctx := t.TempDir(), t.Context()
		s := newServer(t, dir)
		plant := func() { must(t, os.WriteFile(filepath.Join(dir, left), []byte("stale"), 0o600)) }
		plant()
		found, err := s.Databases(ctx)
		if broken := len(found) == 1 && found[0].Name == "a" && found[0].Broken != ""; err != nil || broken == (left == ".lock-a") {
			t.Errorf("%s: found %+v, %v", left, found, err)
		}
		sess := begin(t, s, "a")
		if there, err := sess.Exists(ctx); there || err != nil {
			t.Errorf("%s: %v, %v", left, there, err)
		}
		must(t, sess.Create(ctx, ""), sess.Open(ctx))
		adminExec(t, sess, "CREATE TABLE a (id integer)")
		must(t, sess.Drop(ctx), sess.Close())
		plant()
		sess = begin(t, s, "a")
		must(t, sess.Drop(ctx), sess.Close())
		if got := files(t, dir); len(got) != 0 {
			t.Errorf("%s: there is %q", left, got)
		}
	}
}

// A deleted tenant's rows must not come back from its -wal.
func TestStaleWAL(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := newServer(t, dir)
	sess := begin(t, s, "a")
	must(t, sess.Create(ctx, ""), sess.Open(ctx))
	pool := app(t, s, "a")
	_, err := pool.Exec("CREATE TABLE secret (id integer)")
	must(t, err)
	wal, err := os.ReadFile(filepath.Join(dir, "a-wal")) // no lock is on this one
	if err != nil || len(wal) == 0 {
		t.Fatalf("no -wal: %v", err)
	}
	must(t, pool.Close(), sess.Drop(ctx), os.WriteFile(filepath.Join(dir, "a-wal"), wal, 0o600))
	must(t, sess.Create(ctx, ""), sess.Open(ctx))
	if n := count(t, sess, "SELECT count(*) FROM sqlite_schema"); n != 0 {
		t.Error("the deleted table is back")
	}
}

func TestDropWhileOpen(t *testing.T) {
	ctx := t.Context()
	s := newServer(t, t.TempDir())
	sess := begin(t, s, "a")
	must(t, sess.Create(ctx, ""), sess.Open(ctx))
	pool := app(t, s, "a")
	pool.SetMaxOpenConns(1)
	_, err := pool.Exec("CREATE TABLE stale (id integer)")
	must(t, err, sess.Drop(ctx), sess.Create(ctx, ""), sess.Open(ctx))
	_, _ = pool.Exec("INSERT INTO stale VALUES (1)")
	must(t, pool.Close()) // it must not take the new one's files with it
	if n := count(t, sess, "SELECT count(*) FROM sqlite_schema"); n != 0 {
		t.Error("a stale handle reached the new database")
	}
	must(t, app(t, s, "a").Ping())
}

func TestDumpRestore(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s := newServer(t, dir)
	sess := begin(t, s, "a")
	must(t, sess.Create(ctx, ""), sess.Mark(ctx, meta("u1", 1)), sess.Open(ctx))
	_, err := app(t, s, "a").Exec("CREATE TABLE a (b blob); INSERT INTO a SELECT randomblob(900) FROM (VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9))")
	must(t, err)
	var dump bytes.Buffer
	must(t, sess.Dump(ctx, &dump))
	if err := sess.Restore(ctx, bytes.NewReader(dump.Bytes())); err == nil {
		t.Error("an open database was replaced")
	}
	to := begin(t, s, "b")
	before := files(t, dir)
	for _, n := range []int{0, 50, 100, 4096, dump.Len() - 4096, dump.Len() - 1} {
		if err := to.Restore(ctx, bytes.NewReader(dump.Bytes()[:n])); err == nil {
			t.Errorf("%d of %d bytes were restored", n, dump.Len())
		}
		if got := files(t, dir); !slices.Equal(got, before) {
			t.Errorf("there is now %q", got)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := to.Restore(cancelled, &dump); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for range 2 {
		must(t, to.Restore(ctx, bytes.NewReader(dump.Bytes())))
	}
	m := meta("u2", 1)
	m.Replaces = "u1"
	must(t, to.Mark(ctx, m), to.Open(ctx))
	if n := count(t, to, "SELECT count(*) FROM a"); n != 9 {
		t.Errorf("%d rows", n)
	}
}

func TestServerConfig(t *testing.T) {
	for _, cfg := range []ServerConfig{{}, {Dir: "x", Params: "%zz"}, {Dir: "x", Params: "_pragma=journal_mode(DELETE)"},
		{Dir: "x", Params: "_pragma=locking_mode=exclusive"}, {Dir: "x", Params: "mode=memory"}} {
		if _, err := NewServer(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
