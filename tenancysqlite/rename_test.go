package tenancysqlite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// fencedOne is a fenced database with one row.
func fencedOne(t *testing.T, name string) (string, *Server, catalog.Session) {
	t.Helper()
	dir := t.TempDir()
	s := newServer(t, dir)
	sess := begin(t, s, name)
	must(t, sess.Create(t.Context(), ""), sess.Mark(t.Context(), meta("u1", 1)))
	adminExec(t, sess, "CREATE TABLE a (id integer)")
	adminExec(t, sess, "INSERT INTO a VALUES (1)")
	return dir, s, sess
}

func TestRename(t *testing.T) {
	ctx := t.Context()
	dir, s, sess := fencedOne(t, "old")
	must(t, sess.Open(ctx))
	if err := sess.Rename(ctx, "new"); err == nil || !strings.Contains(err.Error(), "not fenced") {
		t.Errorf("an open one: %v", err)
	}
	pool := app(t, s, "old")
	must(t, pool.Ping(), pool.Close(), sess.Fence(ctx, 0))
	must(t, sess.Rename(ctx, "new"), sess.Rename(ctx, "new"), sess.Close())
	if got := files(t, dir); !slices.Equal(got, []string{".fenced-new"}) {
		t.Errorf("there is %q", got)
	}
	if err := app(t, s, "old").Ping(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("by the old name: %v", err)
	}
	renamed := begin(t, s, "new")
	if m, err := renamed.Owner(ctx); err != nil || m != meta("u1", 1) {
		t.Errorf("%+v, %v", m, err)
	}
	must(t, renamed.Mark(ctx, meta("u1", 2)), renamed.Open(ctx))
	if n := count(t, renamed, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows", n)
	}
	must(t, app(t, s, "new").Ping())
	if err := begin(t, s, "old").Rename(ctx, "elsewhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

func TestRenameRefuses(t *testing.T) {
	ctx := t.Context()
	dir, s, sess := fencedOne(t, "old")
	other := begin(t, s, "taken")
	must(t, other.Create(ctx, ""))
	for _, state := range []func() error{
		func() error { return nil },
		func() error { return other.Open(ctx) },
		func() error { return errors.Join(other.Fence(ctx, 0), other.Seal(ctx)) },
	} {
		must(t, state())
		before := files(t, dir)
		if err := sess.Rename(ctx, "taken"); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "taken") {
			t.Errorf("%v", err)
		}
		if got := files(t, dir); !slices.Equal(got, before) {
			t.Errorf("there is now %q", got)
		}
	}
	before := files(t, dir)
	for _, name := range []string{"", "..", "../x", "a/b", "x-wal", ".fenced-x", "x\x00", strings.Repeat("n", 64)} {
		if err := sess.Rename(ctx, name); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	if got := files(t, dir); !slices.Equal(got, before) {
		t.Errorf("there is now %q", got)
	}
	must(t, sess.Rename(ctx, "old")) // its own
	if n := count(t, sess, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// A crash after the link: one file has both names.
func TestRenameInterrupted(t *testing.T) {
	ctx := t.Context()
	dir, s, sess := fencedOne(t, "old")
	must(t, os.Link(filepath.Join(dir, ".fenced-old"), filepath.Join(dir, ".fenced-new")), sess.Close())
	must(t, begin(t, s, "old").Rename(ctx, "new"))
	renamed := begin(t, s, "new")
	if n := count(t, renamed, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows", n)
	}
	for _, f := range files(t, dir) {
		if strings.Contains(f, "fenced-old") {
			t.Errorf("there is %q", f)
		}
	}
}

// Another's -journal beside the new name must not get into the database.
func TestRenameStaleCompanions(t *testing.T) {
	dir, s, sess := fencedOne(t, "old")
	for _, stale := range []string{"new-wal", "new-shm", ".fenced-new-journal", ".template-new-wal"} {
		must(t, os.WriteFile(filepath.Join(dir, stale), []byte("stale"), 0o600))
	}
	must(t, sess.Rename(t.Context(), "new"), sess.Close())
	if got := files(t, dir); !slices.Equal(got, []string{".fenced-new"}) {
		t.Errorf("there is %q", got)
	}
	if n := count(t, begin(t, s, "new"), "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows", n)
	}
}
