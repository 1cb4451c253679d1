package tenancysqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// companions are the files that SQLite keeps beside a database
// (https://www.sqlite.org/tempfiles.html).
var companions = []string{"-wal", "-shm", "-journal"}

// file is a database's place, and what its DSN asks for.
type file struct {
	root     string // an absolute directory
	name     string // a clean path, relative to root
	confined bool   // name must not lead out of root
	query    url.Values
}

// file parses dsn. It does no I/O.
func (e Engine) file(dsn string) (*file, error) {
	path, query, err := split(dsn)
	if err != nil {
		return nil, fmt.Errorf("tenancysqlite: %w", err)
	}
	if query, err = checkQuery(query); err != nil {
		return nil, fmt.Errorf("tenancysqlite: %w", err)
	}
	f := &file{query: query, confined: e.Dir != ""}
	if f.confined {
		if !filepath.IsLocal(path) {
			return nil, errors.New("tenancysqlite: the DSN's path is not inside of Engine.Dir")
		}
		if f.root, err = filepath.Abs(e.Dir); err != nil {
			return nil, fmt.Errorf("tenancysqlite: Engine.Dir: %w", err)
		}
		f.name = filepath.Clean(path)
	} else {
		// Absolute now, so that a later os.Chdir changes nothing.
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, errors.New("tenancysqlite: the DSN's path can't be made absolute")
		}
		f.root, f.name = filepath.Split(abs)
		f.root = filepath.Clean(f.root)
	}
	if f.name == "" || f.name == "." {
		return nil, errors.New("tenancysqlite: the DSN names a directory")
	}
	for _, suffix := range companions {
		if strings.HasSuffix(strings.ToLower(f.name), suffix) {
			return nil, fmt.Errorf("tenancysqlite: a database's name can't end in %s: SQLite keeps a part of another database under it", suffix)
		}
	}
	return f, nil
}

// split takes a DSN apart as the driver and SQLite together would
// (go-sqlite's sqlite.go, newConn; SQLite's main.c, sqlite3ParseUri), but is
// strict about escapes.
func split(dsn string) (path string, query url.Values, err error) {
	if strings.IndexByte(dsn, 0) >= 0 {
		return "", nil, errors.New("the DSN holds a NUL byte")
	}
	rest, isURI := strings.CutPrefix(dsn, "file:")
	if isURI {
		rest, _, _ = strings.Cut(rest, "#")
	} else if strings.Contains(rest, "://") {
		// A server's URL would become a path, and its password a file's name.
		return "", nil, errors.New("the DSN is neither a path nor a file: URI")
	}
	path, rawQuery, _ := strings.Cut(rest, "?")
	if query, err = url.ParseQuery(rawQuery); err != nil {
		return "", nil, errors.New("the DSN's query is malformed")
	}
	if isURI {
		if path, err = uriPath(path); err != nil {
			return "", nil, err
		}
	}
	switch {
	case path == "":
		// SQLite makes a temporary database of it.
		return "", nil, errors.New("the DSN names no file")
	case path == ":memory:":
		return "", nil, errors.New("a database in memory can't be a tenant's: each connection would have its own; use a file")
	case strings.HasSuffix(path, "/") || os.IsPathSeparator(path[len(path)-1]):
		return "", nil, errors.New("the DSN names a directory")
	}
	return path, query, nil
}

// uriPath returns the path of a URI, after its "file:".
func uriPath(raw string) (string, error) {
	if authority, ok := strings.CutPrefix(raw, "//"); ok {
		host, _, slash := strings.Cut(authority, "/")
		if host != "" && host != "localhost" {
			return "", errors.New("the DSN's URI names a host; write file:///path or file:path")
		}
		if raw = authority[len(host):]; !slash {
			return "", errors.New("the DSN names no file")
		}
	}
	path, err := url.PathUnescape(raw)
	if err != nil {
		return "", errors.New("the DSN's path has a malformed percent escape")
	}
	if strings.IndexByte(path, 0) >= 0 {
		return "", errors.New("the DSN holds a NUL byte")
	}
	if runtime.GOOS == "windows" && len(path) > 2 && path[0] == '/' && path[2] == ':' {
		path = path[1:] // "/C:/dir/file"
	}
	return filepath.FromSlash(path), nil
}

// DSN returns the DSN of the file at path, whatever characters its name holds.
// Add parameters after a "?".
func DSN(path string) string {
	p := filepath.ToSlash(path)
	if filepath.IsAbs(path) {
		if !strings.HasPrefix(p, "/") {
			p = "/" + p
		}
		return "file://" + (&url.URL{Path: p}).EscapedPath()
	}
	return "file:" + (&url.URL{Path: p}).EscapedPath()
}

// path returns where the file is.
func (f *file) path() string { return filepath.Join(f.root, f.name) }

// base is the part of the name that errors may show.
func (f *file) base() string { return filepath.Base(f.name) }

// check returns an error unless the file is there, a regular file, and inside
// of where it has to be. Another process may change that afterwards; this is a
// guard against wrong DSNs, and against links that somebody forgot.
//
// It must not open the file: closing any descriptor of a file drops the locks
// that SQLite holds on it in this process
// (https://www.sqlite.org/howtocorrupt.html, section 2.2).
func (f *file) check() error {
	info, err := f.stat()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &fileError{f.base(), "is missing (create it with tenancysqlite.Create)", fs.ErrNotExist}
	case err != nil:
		return &fileError{f.base(), "can't be opened", bare(err)}
	case !info.Mode().IsRegular():
		return &fileError{f.base(), "is not a regular file", fs.ErrInvalid}
	}
	return nil
}

func (f *file) stat() (fs.FileInfo, error) {
	if !f.confined {
		return os.Stat(f.path())
	}
	root, err := os.OpenRoot(f.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Stat(f.name) // follows no link out of root
}

// fileError is what is wrong with a file. It shows its name but not its
// directory.
type fileError struct {
	base, what string
	err        error
}

func (e *fileError) Error() string {
	return fmt.Sprintf("tenancysqlite: %q %s: %v", e.base, e.what, e.err)
}

func (e *fileError) Unwrap() error { return e.err }

// bare takes the paths off an error of package os.
func bare(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	var linkErr *os.LinkError
	if errors.As(err, &linkErr) {
		return linkErr.Err
	}
	return err
}
