package tenancysqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
)

// Create creates an empty database at path, any path; see [Engine.Create].
func Create(ctx context.Context, path string) error {
	return Engine{}.Create(ctx, DSN(path))
}

// Create creates the empty database that dsn names, in WAL mode, readable by
// this user only (0600). Missing directories are made too (0700). A file that
// is there already is an error that is [fs.ErrExist], and is not touched.
//
// The file appears under its name whole or not at all, also after a crash and
// when several processes create it at once: it is filled under a random name,
// ".creating-" and letters, synced, and linked. A crash may leave that behind.
// The file system must know hard links and WAL, which network file systems may
// not.
//
// A -wal, -shm or -journal file that lies beside the name without a database
// is an error: SQLite would put what it holds, another database's rows, into
// the new one.
func (e Engine) Create(ctx context.Context, dsn string) error {
	f, err := e.file(dsn)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.MkdirAll(f.root, 0o700); err != nil {
		return &fileError{f.base(), "can't be created", bare(err)}
	}
	root, err := os.OpenRoot(f.root)
	if err != nil {
		return &fileError{f.base(), "can't be created", bare(err)}
	}
	defer root.Close()
	if err := create(ctx, root, f); err != nil {
		var fileErr *fileError
		if errors.As(err, &fileErr) {
			return err
		}
		return &fileError{f.base(), "can't be created", bare(err)}
	}
	return nil
}

// create does the work inside root, which lets no link lead out of it.
func create(ctx context.Context, root *os.Root, f *file) error {
	dir := filepath.Dir(f.name)
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := checkFree(root, f); err != nil {
		return err
	}

	return makeFile(ctx, root, filepath.Join(dir, creating+rand.Text()), f.name, func(temp string) error {
		// Made here and not by SQLite, for its mode.
		if err := touch(root, temp, os.O_CREATE|os.O_EXCL); err != nil {
			return err
		}
		return initialize(ctx, filepath.Join(root.Name(), temp))
	})
}

// makeFile lets fill make the file temp, syncs it and links it to name, where
// no file may be. It leaves no temp behind.
func makeFile(ctx context.Context, root *os.Root, temp, name string, fill func(temp string) error) (err error) {
	defer func() {
		if rmErr := removeFile(root, temp); err == nil {
			err = rmErr
		}
	}()
	if err := fill(temp); err != nil {
		return err
	}
	if err := touch(root, temp, 0); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Unlike a rename, a link does not overwrite what another process has
	// created meanwhile.
	if err := root.Link(temp, name); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &fileError{filepath.Base(name), "can't be created", fs.ErrExist}
		}
		return err
	}
	return syncDir(root, filepath.Dir(name))
}

// removeFile removes the file name and its companions, each on its own: that
// one is not there must not spare the others. The file goes last, so that no
// companion is ever left without it.
func removeFile(root *os.Root, name string) error {
	if err := removeCompanions(root, name); err != nil {
		return err
	}
	return removeIfThere(root, name)
}

func removeCompanions(root *os.Root, name string) error {
	for _, suffix := range companions {
		if err := removeIfThere(root, name+suffix); err != nil {
			return err
		}
	}
	return nil
}

func removeIfThere(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkFree returns an error if there is a database under f's name, or what is
// left of one.
func checkFree(root *os.Root, f *file) error {
	dir, base := filepath.Split(f.name)
	for _, prefix := range []string{"", fenced, sealed} { // see Server
		if there, err := exists(root, dir+prefix+base); err != nil {
			return err
		} else if there {
			return &fileError{f.base(), "can't be created", fs.ErrExist}
		}
	}
	for _, suffix := range companions {
		if there, err := exists(root, f.name+suffix); err != nil {
			return err
		} else if there {
			// Not fs.ErrExist: the database does not exist.
			return &fileError{f.base(), "can't be created", fmt.Errorf(
				"a %s file of a database that is gone lies beside it; remove it, or use another name", suffix)}
		}
	}
	return nil
}

func exists(root *os.Root, name string) (bool, error) {
	_, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// touch opens a file of root, syncs and closes it. It must not be called while
// SQLite has the file open; see [file.check].
func touch(root *os.Root, name string, flag int) error {
	f, err := root.OpenFile(name, os.O_RDWR|flag, 0o600)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// initialize makes an empty database in WAL mode of the empty file at path.
// The mode is written into the file, so every later connection has it.
func initialize(ctx context.Context, path string) error {
	f := &file{root: filepath.Dir(path), name: filepath.Base(path), query: url.Values{"mode": {"rw"}}}
	db := sql.OpenDB(newConnector(f))
	defer db.Close()
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode(WAL)").Scan(&mode); err != nil {
		var fileErr *fileError
		if errors.As(err, &fileErr) {
			return fileErr.err // without the random name
		}
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("its file system can't do WAL (the journal mode stays %q)", mode)
	}
	// The last connection to close takes the -wal and -shm away with it.
	return db.Close()
}

// syncDir makes a new name in dir durable.
func syncDir(root *os.Root, dir string) error {
	if runtime.GOOS == "windows" {
		return nil // there, directories can't be synced
	}
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
