package tenancysqlite

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// The loops that a helper process runs until it is killed: each goes through
// the states that a kill must not spoil, and ends at none.
var killed = map[string]func(t *testing.T, s *Server, sess catalog.Session, dump []byte){
	"create": func(t *testing.T, _ *Server, sess catalog.Session, _ []byte) {
		for {
			must(t, sess.Create(t.Context(), "tpl"), sess.Drop(t.Context()), sess.Create(t.Context(), ""), sess.Drop(t.Context()))
		}
	},
	"restore": func(t *testing.T, _ *Server, sess catalog.Session, dump []byte) {
		for {
			must(t, sess.Restore(t.Context(), bytes.NewReader(dump)))
		}
	},
	"drop": func(t *testing.T, s *Server, sess catalog.Session, _ []byte) {
		for {
			must(t, sess.Create(t.Context(), "tpl"), sess.Open(t.Context()))
			pool := app(t, s, "a")
			_, err := pool.Exec("INSERT INTO a VALUES (1)") // there is a -wal now
			must(t, err, sess.Drop(t.Context()), pool.Close())
		}
	},
}

// Whatever a process was at when it was killed, the next session's call
// succeeds, and leaves the files that it leaves otherwise, and no other.
func TestKilledInTheMiddle(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "in")
	s := newServer(t, dir)
	ctx := t.Context()
	tpl := begin(t, s, "tpl")
	must(t, tpl.Create(ctx, ""))
	adminExec(t, tpl, "CREATE TABLE a (id)")
	adminExec(t, tpl, "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO a SELECT randomblob(900) FROM n")
	var dump bytes.Buffer
	must(t, tpl.Dump(ctx, &dump), tpl.Seal(ctx), tpl.Close(), os.WriteFile(filepath.Join(outer, "dump"), dump.Bytes(), 0o600))
	exactly := func(what string, want ...string) {
		t.Helper()
		want = append(want, ".template-tpl")
		slices.Sort(want)
		if got := files(t, dir); !slices.Equal(got, want) {
			t.Errorf("%s: there is %q, want %q", what, got, want)
		}
	}
	seen := map[string]int{}
	for round := range 21 {
		mode := []string{"create", "restore", "drop"}[round%3]
		kill := helper(t, "kill-"+mode, dir)
		<-time.After(rand.N(40 * time.Millisecond)) // it has said that it begins
		kill()
		seen[strings.Join(files(t, dir), " ")]++

		sess := begin(t, s, "a")
		switch mode {
		case "create":
			must(t, sess.Create(ctx, ""), sess.Close())
			exactly(mode, ".fenced-a")
		case "restore":
			must(t, sess.Restore(ctx, bytes.NewReader(dump.Bytes())))
			if n := count(t, sess, "SELECT count(*) FROM a"); n != 200 {
				t.Errorf("%d rows", n)
			}
			must(t, sess.Close())
			exactly(mode, ".fenced-a")
		}
		if mode != "drop" {
			sess = begin(t, s, "a")
		}
		must(t, sess.Drop(ctx))
		if there, err := sess.Exists(ctx); there || err != nil {
			t.Errorf("%s: dropped: %v, %v", mode, there, err)
		}
		must(t, sess.Close())
		exactly(mode + " and drop")
	}
	for what, n := range seen {
		t.Logf("%d times: %s", n, what)
	}
}

// fullReader is a dump on a disk that fails; for a target that is full the
// error is the same one.
type fullReader struct{ err error }

func (r fullReader) Read([]byte) (int, error) { return 0, r.err }

func TestFullDiskIsSaid(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	sess := begin(t, newServer(t, dir), "a")
	must(t, sess.Create(ctx, ""))
	const hint = "the disk is full; make room"
	db, err := sess.DB(ctx)
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("PRAGMA max_page_count = 4")
	must(t, err)
	_, err = db.Exec("CREATE TABLE a AS SELECT randomblob(100000) AS b")
	if err = sess.(*session).fail("can't be filled", err); err == nil || !strings.Contains(err.Error(), hint) {
		t.Errorf("SQLITE_FULL: %v", err)
	}
	must(t, db.Close())

	before := files(t, dir)
	err = sess.Restore(ctx, fullReader{&fs.PathError{Op: "write", Path: filepath.Join(dir, "x"), Err: syscall.ENOSPC}})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), hint) || strings.Contains(err.Error(), dir) {
		t.Errorf("ENOSPC: %v", err)
	}
	if got := files(t, dir); !slices.Equal(got, before) {
		t.Errorf("there is now %q", got)
	}
}
