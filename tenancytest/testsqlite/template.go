package testsqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// dsn is of a database that need not outlive a crash of the machine.
func dsn(path string) string { return tenancysqlite.DSN(path) + "?_pragma=synchronous(OFF)" }

func open(path string) (*sql.DB, error) {
	c, err := tenancysqlite.Engine{}.Connector(dsn(path))
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

// next returns a path for a new file of this run.
func (s *server) next() string {
	return filepath.Join(s.run, strconv.FormatInt(s.last.Add(1), 10)+".db")
}

// Template implements [tenancytest.Server]: the name is the file's path. A
// template appears under its name when it is complete.
func (s *server) Template(ctx context.Context, key string, shared bool, build func(context.Context, *sql.DB) error) (string, error) {
	path, err := s.template(ctx, key, shared, build)
	if err != nil {
		return "", fmt.Errorf("testsqlite: %w", err)
	}
	return path, nil
}

func (s *server) template(ctx context.Context, key string, shared bool, build func(context.Context, *sql.DB) error) (_ string, err error) {
	temp := s.next()
	if !shared {
		return temp, makeFile(ctx, temp, build)
	}
	path := filepath.Join(s.dir, templatePrefix+key+".db")
	l, err := acquire(ctx, path+lockSuffix)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.release()) }()
	now := time.Now()
	err = os.Chtimes(path, now, now) // says that it is in use
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	if err := makeFile(ctx, temp, build); err != nil {
		return "", err
	}
	return path, os.Rename(temp, path)
}

// makeFile makes a database without a -wal: all is in the one file.
func makeFile(ctx context.Context, path string, build func(context.Context, *sql.DB) error) error {
	if err := tenancysqlite.Create(ctx, path); err != nil {
		return err
	}
	db, err := open(path)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := build(ctx, db); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, metaTable); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		return errors.New("a migration has left a connection to its database open; close it")
	}
	return nil
}

// metaTable is as tenancysqlite makes it.
const metaTable = "CREATE TABLE IF NOT EXISTS " + tenancy.MetaTable + ` (
	only_row INTEGER PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
	uid TEXT NOT NULL,
	generation INTEGER NOT NULL,
	catalog TEXT NOT NULL
)`

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}
