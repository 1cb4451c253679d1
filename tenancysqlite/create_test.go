package tenancysqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gorm-tenancy/tenancy"
)

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tenants")
	e := Engine{Dir: dir}
	ctx := t.Context()
	if err := e.Create(ctx, "a/b.db?_pragma=cache_size(100)"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"": fs.ModeDir | 0o700, "a": fs.ModeDir | 0o700, "a/b.db": 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%q: %v, want mode %v (%v)", name, info.Mode(), want, err)
		}
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("the directory holds %q", got)
	}
	// Bytes 18 and 19 of the header say WAL when they are 2
	// (https://www.sqlite.org/fileformat.html, section 1.3).
	head, err := os.ReadFile(filepath.Join(dir, "a/b.db"))
	if err != nil || len(head) < 100 || head[18] != 2 || head[19] != 2 {
		t.Errorf("the file is not in WAL mode (%d bytes, %v)", len(head), err)
	}

	db := open(t, e, "a/b.db")
	if _, err := db.Exec("CREATE TABLE kept (id integer)"); err != nil {
		t.Fatal(err)
	}
	err = e.Create(ctx, "a/b.db")
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating it again: %v", err)
	}
	noPath(t, err, dir)
	if _, err := db.Exec("INSERT INTO kept VALUES (1)"); err != nil {
		t.Errorf("the existing database was harmed: %v", err)
	}
}

func TestCreateRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := Create(t.Context(), "what?#%41.db"); err != nil {
		t.Fatal(err)
	}
	if got := files(t, "."); len(got) != 1 || got[0] != "what?#%41.db" {
		t.Errorf("created %q", got)
	}
}

// A companion that outlived its database brings its rows back.
func TestCreateRefusesStaleCompanions(t *testing.T) {
	for _, suffix := range companions {
		dir := t.TempDir()
		stale := filepath.Join(dir, "a.db"+suffix)
		if err := os.WriteFile(stale, []byte("rows"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Create(t.Context(), filepath.Join(dir, "a.db"))
		if err == nil || errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), suffix) {
			t.Errorf("%s: %v", suffix, err)
		}
		if got := files(t, dir); len(got) != 1 {
			t.Errorf("%s: the directory holds %q", suffix, got)
		}
	}
}

func TestCreateCancelled(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Engine{Dir: dir}.Create(ctx, "a.db")
	if f := (Engine{}).Classify(err); f != tenancy.FaultCaller {
		t.Errorf("%v is %v", err, f)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("the directory holds %q", got)
	}
}

func TestCreateRace(t *testing.T) {
	e := Engine{Dir: t.TempDir()}
	var wg sync.WaitGroup
	var created atomic.Int32
	for range 8 {
		wg.Go(func() {
			switch err := e.Create(t.Context(), "a.db"); {
			case err == nil:
				created.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := created.Load(); n != 1 {
		t.Errorf("%d callers created it", n)
	}
	if got := files(t, e.Dir); len(got) != 1 {
		t.Errorf("the directory holds %q", got)
	}
}
