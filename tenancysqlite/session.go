package tenancysqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// adminConns is the limit of a session's DB: a migration tool needs one for
// its lock and one for its work.
const adminConns = 2

// session is one database's exclusive administration.
//
// A database is at one of three names: its own, where the application opens
// it; ".fenced-" and its own, where Create and Restore put it and Fence moves
// it; ".template-" and its own, where Seal moves it. Each move is one rename,
// so there is no state between.
type session struct {
	server *Server
	name   string
	lock   *lock // nil after Close
}

var errClosed = errors.New("the session is closed")

// ready returns an error if the session can't begin anything.
func (s *session) ready(ctx context.Context) error {
	if s.lock == nil {
		return errClosed
	}
	return ctx.Err()
}

// find returns the prefix of the name that the database is at.
func (s *session) find() (prefix string, err error) {
	found := false
	for _, p := range []string{"", fenced, sealed} {
		info, err := s.server.root.Lstat(p + s.name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", err
		case !info.Mode().IsRegular():
			// A link would be moved in place of what it leads to.
			return "", fmt.Errorf("%q is not a regular file", p+s.name)
		case found:
			return "", fmt.Errorf("both %q and %q are there; remove the one that is wrong", prefix+s.name, p+s.name)
		}
		prefix, found = p, true
	}
	if !found {
		return "", fmt.Errorf("it is missing: %w", fs.ErrNotExist)
	}
	return prefix, nil
}

// Exists implements [catalog.Session].
func (s *session) Exists(ctx context.Context) (bool, error) {
	if err := s.ready(ctx); err != nil {
		return false, s.fail("can't be looked for", err)
	}
	_, err := s.find()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, s.fail("can't be looked for", err)
}

// Create implements [catalog.Session]. The database is closed to the
// application, as after Fence. A copy does not have the template's mark.
func (s *session) Create(ctx context.Context, template string) error {
	if template != "" {
		if err := checkName(template); err != nil {
			return err
		}
	}
	return s.fail("can't be created", s.create(ctx, template))
}

func (s *session) create(ctx context.Context, template string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := s.tidy(creating, dropped); err != nil {
		return err
	}
	if _, err := s.find(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.removeOrphans(); err != nil {
		return err
	}
	return makeFile(ctx, s.server.root, creating+s.name, fenced+s.name, func(temp string) error {
		if template == "" {
			if err := touch(s.server.root, temp, os.O_CREATE|os.O_EXCL); err != nil {
				return err
			}
			if err := initialize(ctx, s.path(temp)); err != nil {
				return err
			}
		} else if err := s.copyTemplate(ctx, temp, template); err != nil {
			return err
		}
		return s.prepare(ctx, temp, template != "")
	})
}

// copyTemplate copies a template's bytes: it is whole, in one file, and no
// SQLite writes to it, so that this needs no lock of SQLite's and drops none.
func (s *session) copyTemplate(ctx context.Context, temp, template string) error {
	src, err := s.server.root.Open(sealed + template)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %q is not there, or not sealed", catalog.ErrNoTemplate, template)
	}
	if err != nil {
		return err
	}
	defer src.Close()
	return s.fill(ctx, temp, src)
}

// fill makes the file temp of what r reads.
func (s *session) fill(ctx context.Context, temp string, r io.Reader) error {
	f, err := s.server.root.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, ctxReader{ctx, r})
	return errors.Join(err, f.Close())
}

// ctxReader ends with its ctx.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// prepare brings the new file temp into the state that a fenced database has:
// without WAL, see fence.go.
func (s *session) prepare(ctx context.Context, temp string, unmark bool) error {
	db := s.open(temp, url.Values{"mode": {"rw"}})
	defer db.Close()
	if unmark {
		if err := removeMark(ctx, db); err != nil {
			return err
		}
	}
	if err := leaveWAL(ctx, db); err != nil {
		return err
	}
	return db.Close()
}

// DB implements [catalog.Session], with 2 connections at most. A fenced
// database is not in WAL mode: there, one connection's open rows keep the
// other from writing. A template is read-only.
func (s *session) DB(ctx context.Context) (*sql.DB, error) {
	db, err := s.db(ctx)
	return db, s.fail("can't be opened", err)
}

func (s *session) db(ctx context.Context) (*sql.DB, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	base, query, err := s.where()
	if err != nil {
		return nil, err
	}
	db := s.open(base, query)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// where returns the name that the database is at, and how it is opened there.
func (s *session) where() (base string, query url.Values, err error) {
	prefix, err := s.find()
	if err != nil {
		return "", nil, err
	}
	switch prefix {
	case fenced:
		query = url.Values{"_pragma": {"journal_mode(DELETE)"}}
	case sealed:
		query = url.Values{"mode": {"ro"}}
	}
	query, err = checkQuery(query)
	return prefix + s.name, query, err
}

// open opens one of the session's files with query alone.
func (s *session) open(base string, query url.Values) *sql.DB {
	db := sql.OpenDB(newConnector(&file{root: s.server.dir, name: base, confined: true, query: query}))
	db.SetMaxOpenConns(adminConns)
	return db
}

func (s *session) path(base string) string { return filepath.Join(s.server.dir, base) }

// Close implements [catalog.Session]. It may be called again.
func (s *session) Close() error {
	if s.lock == nil {
		return nil
	}
	err := s.lock.release()
	s.lock = nil
	return s.fail("can't be unlocked", err)
}

// fail makes of err what the caller gets to see.
func (s *session) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	return &fileError{s.name, what, explain(err)}
}

// explain takes paths and file names off err, and says what to do where that
// can be known.
func explain(err error) error {
	if fileErr, ok := err.(*fileError); ok {
		err = fileErr.err
	}
	err = bare(err)
	if errors.Is(err, syscall.ENOSPC) || hasCode(err, sqlite3.SQLITE_FULL) {
		return fmt.Errorf("%w (the disk is full; make room, then do it again)", err)
	}
	return err
}
