package tenancysqlite

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorm-tenancy/tenancy"
)

func TestBadDSNs(t *testing.T) {
	for _, tt := range []struct{ dir, dsn, want string }{
		{"", "", "names no file"},
		{"", "file:", "names no file"},
		{"", "file://", "names no file"},
		{"", "file://localhost", "names no file"},
		{"", "?mode=rw", "names no file"},
		{"", "file:?mode=rw", "names no file"},
		{"", "file:#a.db", "names no file"},
		{"", ":memory:", "memory"},
		{"", "file::memory:", "memory"},
		{"", "file:%3Amemory%3a", "memory"},
		{"", ":memory:?_txlock=immediate", "memory"},
		{"", "file:a.db?mode=memory", "mode must be"},
		{"", "a.db?mode=rwc", "mode must be"},
		{"", "a.db?mode=rw&mode=memory", "more than once"},
		{"", "a.db?vfs=memdb", "unknown parameter"},
		{"", "a.db?_pragmas=foreign_keys(0)", "unknown parameter"},
		{"", "a.db?_txlock=later", "_txlock must be"},
		{"", "a.db?_time_format=unix", "_time_format must be"},
		{"", "a.db?_pragma=%zz", "query is malformed"},
		{"", "a.db?_pragma=a%00b", "NUL"},
		{"", "a\x00.db", "NUL"},
		{"", "file:a%00.db", "NUL"},
		{"", "file:a%zz.db", "percent escape"},
		{"", "file://elsewhere/a.db", "names a host"},
		{"", "postgres://u:hunter2@h", "neither a path nor"},
		{"", "dir/", "directory"},
		{"", "/", "directory"},
		{"", "file:dir%2F", "directory"},
		{"", "a.db-wal", "can't end in -wal"},
		{"", "a.db-SHM", "can't end in -shm"},
		{"", "file:a.db%2Djournal", "can't end in -journal"},
		{"/data", "../a.db", "not inside"},
		{"/data", "x/../../a.db", "not inside"},
		{"/data", "/data/a.db", "not inside"},
		{"/data", "file:///data/a.db", "not inside"},
		{"/data", "file:%2e%2e/a.db", "not inside"},
		{"/data", "file:%2Fetc/passwd", "not inside"},
		{"/data", ".", "directory"},
		{"/data", "x/..", "directory"},
	} {
		_, err := Engine{Dir: tt.dir}.Connector(tt.dsn)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q in %q: %v, want %q", tt.dsn, tt.dir, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows a password: %v", err)
		}
		if err := (Engine{Dir: tt.dir}).Create(context.Background(), tt.dsn); err == nil {
			t.Errorf("%q in %q could be created", tt.dsn, tt.dir)
		}
	}
}

// hostile are names that mean something to a URI, a query or a shell.
var hostile = []string{
	"plain.db", "with space.db", "what?.db", "a?mode=memory", "frag#ment.db", "100%.db", "%41.db",
	"%00.db", "a+b.db", "a&b=c;d.db", "ünï.db", "\xff\xfe.db", "'quote\".db", "back\\slash.db",
	"new\nline.db", ":memory:.db", "file:x.db", "*", "~", "-rf", "a:b", "//double.db",
}

func TestHostileNames(t *testing.T) {
	for _, name := range hostile {
		roundTrip(t, t.TempDir(), name)
	}
}

func FuzzSQLitePath(f *testing.F) {
	for _, name := range hostile {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		// The rest is refused by rule, which TestBadDSNs tests, or by the
		// file system, or is a name that SQLite finds too long.
		if _, err := (Engine{Dir: "."}).file(DSN(name)); err != nil || len(name) > 200 {
			return
		}
		roundTrip(t, t.TempDir(), name)
	})
}

// roundTrip creates a database and looks at which file came of it.
func roundTrip(t *testing.T, dir, name string) {
	t.Helper()
	e := Engine{Dir: dir}
	dsn := DSN(name)
	if filepath.IsAbs(name) {
		dsn = DSN(strings.TrimLeft(name, "/"))
		name = strings.TrimLeft(name, "/")
	}
	if err := e.Create(t.Context(), dsn); err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	db := open(t, e, dsn)
	if _, err := db.Exec("CREATE TABLE mine (id integer)"); err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	_ = db.Close()
	info, err := os.Lstat(filepath.Join(dir, name))
	if err != nil || info.Size() == 0 {
		t.Fatalf("%q is not where it should be: %v", name, err)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Fatalf("%q: the directory holds %q", name, got)
	}
}

func TestSymlinks(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	ctx := t.Context()
	if err := Create(ctx, filepath.Join(outside, "theirs.db")); err != nil {
		t.Fatal(err)
	}
	e := Engine{Dir: dir}
	if err := e.Create(ctx, "sub/mine.db"); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"out.db":  filepath.Join(outside, "theirs.db"),
		"outdir":  outside,
		"up.db":   filepath.Join("..", filepath.Base(outside), "theirs.db"),
		"in.db":   filepath.Join("sub", "mine.db"),
		"dangles": "nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for dsn, ok := range map[string]bool{
		"sub/mine.db": true, "in.db": true,
		"out.db": false, "outdir/theirs.db": false, "up.db": false, "dangles": false,
	} {
		c, err := e.Connector(dsn)
		if err != nil {
			t.Fatal(err)
		}
		dc, err := c.Connect(ctx)
		if got := err == nil; got != ok {
			t.Errorf("%s: opened = %v, want %v (%v)", dsn, got, ok, err)
		}
		if err != nil {
			if f := e.Classify(err); f != tenancy.FaultTenant {
				t.Errorf("%s: %v is %v", dsn, err, f)
			}
			noPath(t, err, dir, outside)
		} else {
			_ = dc.Close()
		}
	}
	for _, dsn := range []string{"outdir/new.db", "out.db", "dangles"} {
		if err := e.Create(ctx, dsn); err == nil {
			t.Errorf("%s was created", dsn)
		}
	}
	if got := files(t, outside); len(got) != 1 {
		t.Errorf("outside of Dir there is now %q", got)
	}
}

func TestMissingFile(t *testing.T) {
	dir := t.TempDir()
	for _, e := range []Engine{{}, {Dir: dir}, {Dir: filepath.Join(dir, "none")}} {
		dsn := "missing.db"
		if e.Dir == "" {
			dsn = filepath.Join(dir, dsn)
		}
		db := open(t, e, dsn)
		err := db.Ping()
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"missing.db" is missing (create it with tenancysqlite.Create)`) {
			t.Errorf("%+v: %v", e, err)
		}
		noPath(t, err, dir)
		if f := e.Classify(err); f != tenancy.FaultTenant {
			t.Errorf("%v is %v", err, f)
		}
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("there is now %q", got)
	}
}

// What goes to the driver must not create a file either, should one vanish
// after it was looked at.
func TestDriverCreatesNothing(t *testing.T) {
	dir := t.TempDir()
	f, err := Engine{Dir: dir}.file("missing.db")
	if err != nil {
		t.Fatal(err)
	}
	_, err = registered().Open(newConnector(f).dsn)
	if fault := (Engine{}).Classify(err); fault != tenancy.FaultTenant {
		t.Errorf("%v is %v", err, fault)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("there is now %q", got)
	}
}

func TestUnusableFiles(t *testing.T) {
	dir := t.TempDir()
	e := Engine{Dir: dir}
	if err := os.WriteFile(filepath.Join(dir, "text.db"), []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"text.db", "dir.db", "text.db/x.db"} {
		err := open(t, e, name).Ping()
		if err == nil {
			t.Errorf("%s could be opened", name)
			continue
		}
		if f := e.Classify(err); f != tenancy.FaultTenant {
			t.Errorf("%s: %v is %v", name, err, f)
		}
		noPath(t, err, dir)
	}
}

func noPath(t testing.TB, err error, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err != nil && strings.Contains(err.Error(), dir) {
			t.Errorf("the error shows a directory: %v", err)
		}
	}
}

func open(t testing.TB, e Engine, dsn string) *sql.DB {
	t.Helper()
	c, err := e.Connector(dsn)
	if err != nil {
		t.Fatalf("%q: %v", dsn, err)
	}
	db := sql.OpenDB(c)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// files returns the paths of all files below dir.
func files(t testing.TB, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			paths = append(paths, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A server's URL that somebody mangled: its password must not be shown.
func TestUnknownParameterShowsNoPassword(t *testing.T) {
	for _, dsn := range []string{"postgres:?//user:hunter2@host/db", "a.db?user:hunter2@host=1", "a.db?hunter2 "} {
		_, err := Engine{}.Connector(dsn)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}
