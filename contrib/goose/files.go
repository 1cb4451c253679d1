package tenancygoose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// files is a directory in memory. Migrations are read once, so that what has
// been checked, and what the fingerprint stands for, is what runs in each
// database, also if they come from a disk.
type files map[string][]byte

// readFiles returns the SQL files and the Go files that have a version. goose
// gets only the former: to the providers that share a Go migration, it would
// write the name of its file (goose provider_collect.go, merge), which is a
// data race.
func readFiles(fsys fs.FS) (sqlFiles, goFiles files, err error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, nil, fmt.Errorf("reading Config.FS: %w", err)
	}
	sqlFiles, goFiles = files{}, files{}
	for _, e := range entries {
		name := e.Name()
		into := sqlFiles
		switch ext := path.Ext(name); {
		case e.IsDir(), strings.HasSuffix(name, "_test.go"):
			continue
		case ext == ".go":
			into = goFiles
		case !strings.EqualFold(ext, ".sql"):
			continue
		}
		if !strings.ContainsAny(name[:1], "0123456789+-") {
			continue
		}
		// goose leaves out what it can't make a version of, and says nothing
		// (goose provider_collect.go, collectFilesystemSources).
		if _, err := goose.NumericComponent(name); err != nil {
			return nil, nil, fmt.Errorf("%s: %w: name it like 00001_users.sql, or leave it out of Config.FS", name, err)
		}
		if into[name], err = fs.ReadFile(fsys, name); err != nil {
			return nil, nil, fmt.Errorf("reading Config.FS: %w", err)
		}
	}
	if len(sqlFiles)+len(goFiles) == 0 {
		return nil, nil, errors.New("Config.FS has no migration at its root, like 00001_users.sql: " +
			"use fs.Sub if they are in a directory, or leave it nil")
	}
	return sqlFiles, goFiles, nil
}

// unregistered finds Go files that nobody has handed over the function of.
func unregistered(goFiles files, registered []*goose.Migration) error {
	for _, name := range goFiles.names() {
		version, _ := goose.NumericComponent(name)
		if !slices.ContainsFunc(registered, func(m *goose.Migration) bool { return m.Version == version }) {
			return fmt.Errorf("%s is in Config.FS, but no migration %d is in Config.Go: add it, or leave the file out", name, version)
		}
	}
	return nil
}

func (f files) names() []string { return slices.Sorted(maps.Keys(f)) }

// Glob is fs.GlobFS's, and Open fs.FS's. They are all that goose asks for.
func (f files) Glob(pattern string) (found []string, err error) {
	for _, name := range f.names() {
		ok, err := path.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, name)
		}
	}
	return found, nil
}

func (f files) Open(name string) (fs.File, error) {
	content, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{bytes.NewReader(content), name}, nil
}

type file struct {
	io.Reader
	name string
}

func (f *file) Close() error               { return nil }
func (f *file) Stat() (fs.FileInfo, error) { return f, nil }

func (f *file) Name() string       { return f.name }
func (f *file) Size() int64        { return f.Reader.(*bytes.Reader).Size() }
func (f *file) Mode() fs.FileMode  { return 0o444 }
func (f *file) ModTime() time.Time { return time.Time{} }
func (f *file) IsDir() bool        { return false }
func (f *file) Sys() any           { return nil }
