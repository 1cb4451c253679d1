package tenancysqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// SQLite has no roles and can't end another's connection. What it has:
//
//   - In WAL mode, each connection that has read anything holds a shared lock
//     on the file until it is closed, idle ones too (SQLite's pager.c,
//     pager_unlock, does not unlock the file in WAL mode), and to leave WAL
//     mode takes the exclusive one (sqlite3PagerCloseWal). So a connection
//     that leaves it is the only one.
//   - Without WAL, a write looks first whether the file still has the name by
//     which it was opened, and is SQLITE_READONLY_DBMOVED if not (pager.c,
//     databaseIsUnmoved). So a connection that had been opened but had read
//     nothing yet, and holds no lock therefore, can't write after the rename.
//     With WAL nobody would look: that is why a fenced database has none.
//
// The rename also keeps new connections out, whichever process wants them:
// Engine never creates a file.

const (
	// fencePoll is how often a database that is in use is tried again.
	fencePoll = 20 * time.Millisecond
	// sealWait is how long Open and Seal wait for others, of whom there should
	// be none.
	sealWait = time.Second
)

// Open implements [catalog.Session].
func (s *session) Open(ctx context.Context) error {
	return s.fail("can't be opened to the application", s.openUp(ctx))
}

func (s *session) openUp(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	prefix, err := s.find()
	switch {
	case err != nil:
		return err
	case prefix == sealed:
		return errors.New("it is a template")
	case prefix == fenced:
		if err := s.move(ctx, fenced, "", sealWait); err != nil {
			return err
		}
	}
	// Each connection of the application would do that too.
	db, err := s.db(ctx)
	if err != nil {
		return err
	}
	return db.Close()
}

// Fence implements [catalog.Session]. Connections that are there can't be
// ended, and those of the application that begin before drain is over can only
// be refused by their Identity: raise the generation first, with Mark.
func (s *session) Fence(ctx context.Context, drain time.Duration) error {
	err := s.ready(ctx)
	if err == nil {
		var prefix string
		if prefix, err = s.find(); err == nil && prefix == "" {
			err = s.move(ctx, "", fenced, drain)
		}
	}
	return s.fail("can't be closed to the application", err)
}

// Seal implements [catalog.Session]. A template is one file, read-only.
func (s *session) Seal(ctx context.Context) error {
	return s.fail("can't be made a template", s.seal(ctx))
}

func (s *session) seal(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	prefix, err := s.find()
	if err != nil {
		return err
	}
	if prefix != sealed {
		if err := s.move(ctx, prefix, sealed, sealWait); err != nil {
			return err
		}
	}
	return s.server.root.Chmod(sealed+s.name, 0o400)
}

// Rename implements [catalog.Session].
func (s *session) Rename(ctx context.Context, to string) error {
	return s.fail("can't be renamed", s.rename(ctx, to))
}

func (s *session) rename(ctx context.Context, to string) error {
	if err := checkName(to); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	root := s.server.root
	old, err := root.Lstat(fenced + s.name)
	if errors.Is(err, fs.ErrNotExist) {
		for _, prefix := range []string{"", sealed} {
			if there, err := exists(root, prefix+s.name); err != nil {
				return err
			} else if there {
				return errors.New("it is not fenced")
			}
		}
		_, err := root.Lstat(fenced + to)
		return err
	}
	if err != nil {
		return err
	}
	if done, err := root.Lstat(fenced + to); err != nil || !os.SameFile(old, done) {
		if err := s.linkAs(to); err != nil {
			return err
		}
	} else if both, err := s.hasBoth(to); err != nil {
		return err
	} else if !both {
		return root.Rename(fenced+s.name, fenced+to)
	}
	if err := syncDir(root, "."); err != nil { // one of the names has to last
		return err
	}
	if err := root.Remove(fenced + s.name); err != nil {
		return err
	}
	return syncDir(root, ".")
}

// hasBoth tells the one file under both names that an interrupted Rename leaves
// from one name that can be written in two ways, where the file system folds
// case: there, to remove the old name would remove the database.
func (s *session) hasBoth(to string) (bool, error) {
	entries, err := fs.ReadDir(s.server.root.FS(), ".")
	if err != nil {
		return false, err
	}
	found := 0
	for _, e := range entries {
		if n := e.Name(); n == fenced+s.name || n == fenced+to {
			found++
		}
	}
	return found == 2, nil
}

// linkAs gives the database a second name. A fenced database is one file, and
// nobody has it open.
func (s *session) linkAs(to string) error {
	root := s.server.root
	for _, prefix := range []string{"", fenced, sealed} {
		if there, err := exists(root, prefix+to); err != nil {
			return err
		} else if there {
			return fmt.Errorf("%q is taken: %w", to, fs.ErrExist)
		}
		// What lies beside it would be put into it.
		if err := removeCompanions(root, prefix+to); err != nil {
			return err
		}
	}
	return root.Link(fenced+s.name, fenced+to) // does not overwrite what is there
}

// move gives the database another prefix once no connection is left, and tries
// for as long as wait.
func (s *session) move(ctx context.Context, from, to string, wait time.Duration) error {
	if err := removeCompanions(s.server.root, to+s.name); err != nil {
		return err
	}
	deadline := time.Now().Add(wait)
	for {
		err := s.tryMove(ctx, from, to)
		if err != errCameBetween && !hasCode(err, sqlite3.SQLITE_BUSY) {
			return err
		}
		pause := min(fencePoll, time.Until(deadline))
		if pause <= 0 {
			return fmt.Errorf("%w: other connections have the file open; close the pools of all processes that use it (see tenancy.Plugin.Drain), or end the processes, then do it again (%w)",
				catalog.ErrNotFenced, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: other connections have the file open: %w", catalog.ErrNotFenced, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// tryMove renames the file while it has it locked. If others have it open, it
// returns SQLITE_BUSY or errCameBetween.
func (s *session) tryMove(ctx context.Context, from, to string) error {
	db := s.open(from+s.name, url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(0)"}})
	defer db.Close()
	db.SetMaxOpenConns(1)
	// It also brings in what a crashed process left in a -wal or -journal.
	if err := leaveWAL(ctx, db); err != nil {
		return err
	}
	// Who comes between has to wait, or is here first.
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		return err
	}
	defer func() { _, _ = db.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }()
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "delete" {
		return errCameBetween
	}
	if err := s.server.root.Rename(from+s.name, to+s.name); err != nil {
		return err
	}
	return syncDir(s.server.root, ".")
}

// errCameBetween is a connection that made WAL of the file again.
var errCameBetween = errors.New("another connection came")

// leaveWAL takes db's file out of WAL mode, and everything that is in the -wal
// into it. It is SQLITE_BUSY if any other connection is there.
func leaveWAL(ctx context.Context, db *sql.DB) error {
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode(DELETE)").Scan(&mode); err != nil {
		return err
	}
	if mode != "delete" {
		return fmt.Errorf("the journal mode stays %q", mode)
	}
	return nil
}
