package testsqlite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancytest"
)

// database is one file. A test's connections are closed when it is discarded
// or kept.
type database struct {
	server *server
	path   string
	id     tenancy.Identity
}

// companions are the files that SQLite keeps beside a database
// (https://www.sqlite.org/tempfiles.html).
var companions = []string{"-wal", "-shm", "-journal"}

// Clone implements [tenancytest.Server].
func (s *server) Clone(ctx context.Context, template string) (tenancytest.Database, error) {
	path := s.next()
	d := &database{server: s, path: path,
		id: tenancy.Identity{UID: "tenancytest-" + s.id + "-" + strings.TrimSuffix(filepath.Base(path), ".db"), Generation: 1}}
	err := copyFile(template, path)
	if err == nil {
		err = d.mark(ctx)
	}
	if err != nil {
		d.Discard()
		return nil, fmt.Errorf("testsqlite: copying a template: %w", err)
	}
	return d, nil
}

// mark writes whose the database is.
func (d *database) mark(ctx context.Context) error {
	db, err := open(d.path)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "INSERT OR REPLACE INTO "+tenancy.MetaTable+
		" (only_row, uid, generation, catalog) VALUES (1, ?, ?, 'tenancytest')", d.id.UID, d.id.Generation)
	if err != nil {
		return err
	}
	return db.Close()
}

// DSN implements [tenancytest.Database].
func (d *database) DSN() string { return dsn(d.path) }

// Identity implements [tenancytest.Database].
func (d *database) Identity() tenancy.Identity { return d.id }

// Sandbox implements [tenancytest.Database]: there is none.
func (d *database) Sandbox() (tenancytest.Sandbox, error) { return nil, nil }

// Discard implements [tenancytest.Database]. What can't be removed now, on
// Windows while it is open, is removed with the run.
func (d *database) Discard() {
	for _, suffix := range companions {
		_ = os.Remove(d.path + suffix)
	}
	_ = os.Remove(d.path)
}

// Keep implements [tenancytest.Database].
func (d *database) Keep(_ context.Context, test string) (string, error) {
	dir := filepath.Join(d.server.dir, keptPrefix+d.server.pkg+"-"+d.server.id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	to := filepath.Join(dir, fileName(test)+"-"+filepath.Base(d.path))
	// A -wal is there if the application has not closed its own connections.
	for _, suffix := range companions {
		if err := ignore(os.Rename(d.path+suffix, to+suffix), os.ErrNotExist); err != nil {
			return "", err
		}
	}
	if err := os.Rename(d.path, to); err != nil {
		return "", err
	}
	return fmt.Sprintf("its database is kept until the next run of this package's tests, one day at most: sqlite3 '%s'",
		strings.ReplaceAll(to, "'", `'\''`)), nil
}

// fileName makes a file's name of a test's.
func fileName(test string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, test)
	return name[:min(len(name), 100)]
}
