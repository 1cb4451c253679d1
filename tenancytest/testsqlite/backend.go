// Package testsqlite makes the databases of tests as SQLite files: nothing to
// install, and each test has files of its own.
package testsqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gorm-tenancy/tenancy/tenancytest"
)

var _ tenancytest.Backend = Backend{}

// Backend keeps databases in one directory, for all packages and runs: in
// directories run-..., one for each run, in kept-..., those of failed tests, and the
// templates. The zero value is ready to use.
type Backend struct {
	// Dir is the directory, on a local file system. It is made, with mode 0700,
	// if it is not there. Nothing else may be kept in it. Defaults to
	// tenancytest-UID in os.TempDir, which must belong to this user alone.
	Dir string
}

// Open implements [tenancytest.Backend].
func (b Backend) Open(ctx context.Context) (tenancytest.Server, error) {
	dir, err := b.dir()
	if err != nil {
		return nil, fmt.Errorf("testsqlite: %w", err)
	}
	s := &server{dir: dir, pkg: packageKey()}
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("testsqlite: %w", err)
	}
	if err := s.sweep(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("testsqlite: removing what dead runs left: %w", err), s.Close(ctx))
	}
	return s, nil
}

func (b Backend) dir() (string, error) {
	dir := b.Dir
	if dir == "" {
		name := "tenancytest"
		if uid := os.Getuid(); uid >= 0 { // -1 on Windows, where TempDir is the user's own
			name += "-" + strconv.Itoa(uid)
		}
		dir = filepath.Join(os.TempDir(), name)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Others may write into the temporary directory: what lies there could be theirs.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if b.Dir == "" && !private(info) {
		return "", fmt.Errorf("%s is not a directory of this user alone; remove it, or set Backend.Dir", dir)
	}
	return dir, nil
}
