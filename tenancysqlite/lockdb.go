package tenancysqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

var _ migrate.Locker = Engine{}

// LockDatabase implements [migrate.Locker]. The lock is a file beside the
// database's, of the name that a [Server]'s sessions lock: the two exclude each
// other.
//
// l.LockTimeout is the busy_timeout, whatever the DSN says. SQLite has no
// timeout of statements: l.StatementTimeout has no effect, and a statement's
// ctx bounds it. The lock ends with its process and can't be taken from it, so
// that l.Steal waits like everybody, and says what to do. l.ReadOnly opens with
// mode=ro.
func (e Engine) LockDatabase(ctx context.Context, d tenancy.Database, l migrate.Lock) (*migrate.Exclusive, error) {
	var f *file
	switch c := d.Connector.(type) {
	case nil:
		var err error
		if f, err = e.file(d.DSN); err != nil {
			return nil, err
		}
	case *connector:
		f = c.file
	default:
		return nil, fmt.Errorf("tenancysqlite: the Database's Connector is a %T, which does not tell its file; use one of Engine.Connector", c)
	}
	return lockFileOf(ctx, f, l)
}

// LockMain implements [migrate.Locker]. It opens the file of db a second time,
// with the same foreign_keys. Two things can't be opened twice: a database in
// memory, which needs no lock, since no other process has it; and that of
// another driver than this package's, because two SQLites in one process would
// drop each other's locks (https://www.sqlite.org/howtocorrupt.html, section
// 2.2.1). There the result has db itself, as it is: l.LockTimeout and
// l.ReadOnly have no effect.
func (e Engine) LockMain(ctx context.Context, db *sql.DB, l migrate.Lock) (*migrate.Exclusive, error) {
	var path string
	var foreignKeys int
	err := db.QueryRowContext(ctx, "SELECT l.file, f.foreign_keys FROM pragma_database_list l, pragma_foreign_keys f WHERE l.name = 'main'").Scan(&path, &foreignKeys)
	if err != nil {
		return nil, &fileError{"main", "can't be asked for its file", bare(err)}
	}
	same := reflect.TypeOf(db.Driver()) == reflect.TypeOf(registered())
	if path == "" || !same {
		return lockItself(ctx, db, path, l)
	}
	f := &file{query: url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {"foreign_keys(" + strconv.Itoa(foreignKeys) + ")"}}}
	f.root, f.name = filepath.Split(path)
	return lockFileOf(ctx, f, l)
}

func lockItself(ctx context.Context, db *sql.DB, path string, l migrate.Lock) (*migrate.Exclusive, error) {
	release := func() error { return nil }
	if path != "" && !l.ReadOnly {
		k, err := acquireWithin(ctx, filepath.Dir(path), filepath.Base(path), l)
		if err != nil {
			return nil, err
		}
		release = k.release
	}
	if err := checkIdentity(ctx, db, l.Identity); err != nil {
		return nil, errors.Join(&fileError{"main", "is not used", err}, release())
	}
	return &migrate.Exclusive{DB: db, Close: release}, nil
}

// LockDatabase is [Engine.LockDatabase] for the database of that name, also for
// one that is closed to the application. It excludes a Session, and does not
// wait for one if l.ReadOnly is set.
func (s *Server) LockDatabase(ctx context.Context, name string, l migrate.Lock) (*migrate.Exclusive, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	ses := &session{server: s, name: name}
	// Before the lock, which is a file, and after, as a session may move it.
	if _, err := ses.find(); err != nil {
		return nil, ses.fail("can't be opened", err)
	}
	k, err := lockUnlessReading(ctx, s.dir, name, l)
	if err != nil {
		return nil, err
	}
	base, query, err := ses.where()
	if err != nil {
		return nil, errors.Join(ses.fail("can't be opened", err), k.release())
	}
	return openLocked(ctx, &file{root: s.dir, name: base, confined: true, query: query}, k, l)
}

// LockMain is [Engine.LockMain].
func (s *Server) LockMain(ctx context.Context, db *sql.DB, l migrate.Lock) (*migrate.Exclusive, error) {
	return Engine{}.LockMain(ctx, db, l)
}

// lockFileOf locks the file and opens it.
func lockFileOf(ctx context.Context, f *file, l migrate.Lock) (*migrate.Exclusive, error) {
	if err := f.check(); err != nil {
		return nil, err // and make no lock file
	}
	// Whatever link leads to it, it has one lock.
	path, err := filepath.EvalSymlinks(f.path())
	if err != nil {
		return nil, &fileError{f.base(), "can't be opened", bare(err)}
	}
	k, err := lockUnlessReading(ctx, filepath.Dir(path), filepath.Base(path), l)
	if err != nil {
		return nil, err
	}
	return openLocked(ctx, f, k, l)
}

// lockUnlessReading returns nil if there is nothing to lock.
func lockUnlessReading(ctx context.Context, dir, name string, l migrate.Lock) (*lock, error) {
	if l.ReadOnly {
		return nil, nil
	}
	return acquireWithin(ctx, dir, name, l)
}

// acquireWithin is acquire with l's bound.
func acquireWithin(ctx context.Context, dir, name string, l migrate.Lock) (*lock, error) {
	bounded := ctx
	if l.Wait > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, l.Wait)
		defer cancel()
	}
	k, err := acquire(bounded, dir, name)
	switch {
	case err == nil:
		return k, nil
	case ctx.Err() != nil:
		return nil, &fileError{name, "is locked by another process, or by another session of this one", ctx.Err()}
	case bounded.Err() != nil && l.Steal:
		return nil, &fileError{name, "can't be locked", fmt.Errorf("%w; its lock can't be taken from here: end the process that has it", migrate.ErrLocked)}
	case bounded.Err() != nil:
		return nil, &fileError{name, "can't be locked", migrate.ErrLocked}
	}
	return nil, &fileError{name, "can't be locked", explain(err)}
}

// openLocked opens f, whose lock is k, which may be nil.
func openLocked(ctx context.Context, f *file, k *lock, l migrate.Lock) (*migrate.Exclusive, error) {
	wait := busyTimeout(l.LockTimeout)
	if l.Identity != (tenancy.Identity{}) {
		// On a connection that does nothing else: journal_mode would already
		// have changed another tenant's file.
		probe := *f
		probe.query = url.Values{"mode": {f.query.Get("mode")}, "_pragma": {wait}}
		if l.ReadOnly {
			probe.query.Set("mode", "ro")
		}
		db := sql.OpenDB(newConnector(&probe))
		err := checkIdentity(ctx, db, l.Identity)
		if err := errors.Join(err, db.Close()); err != nil {
			return nil, errors.Join(&fileError{f.base(), "is not used", explain(err)}, k.release())
		}
	}
	db := sql.OpenDB(newConnector(lockedFile(f, wait, l.ReadOnly)))
	db.SetMaxOpenConns(adminConns)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(&fileError{f.base(), "can't be opened", explain(err)}, db.Close(), k.release())
	}
	return &migrate.Exclusive{DB: db, Close: func() error { return errors.Join(db.Close(), k.release()) }}, nil
}

// lockedFile is f with what migrations need.
func lockedFile(f *file, wait string, readOnly bool) *file {
	locked := *f
	pragmas := slices.DeleteFunc(slices.Clone(f.query["_pragma"]), func(p string) bool {
		return pragmaName(p) == "busy_timeout" || readOnly && pragmaName(p) == "journal_mode"
	})
	locked.query = url.Values{"mode": f.query["mode"], "_pragma": append([]string{wait}, pragmas...)}
	if readOnly {
		locked.query.Set("mode", "ro")
	} else if f.query.Has("_txlock") {
		locked.query["_txlock"] = f.query["_txlock"]
	}
	return &locked
}

// busyTimeout is the pragma for it; SQLite's 0 would not wait at all.
func busyTimeout(d time.Duration) string {
	ms := int64(math.MaxInt32)
	if d > 0 {
		ms = min(ms, int64((d+time.Millisecond-1)/time.Millisecond))
	}
	return "busy_timeout(" + strconv.FormatInt(ms, 10) + ")"
}

func checkIdentity(ctx context.Context, db *sql.DB, want tenancy.Identity) error {
	if want == (tenancy.Identity{}) {
		return nil
	}
	var there bool
	err := db.QueryRowContext(ctx, "SELECT count(*) > 0 FROM sqlite_schema WHERE type IN ('table', 'view') AND lower(name) = '"+tenancy.MetaTable+"'").Scan(&there)
	if err != nil {
		return err
	}
	var got tenancy.Identity
	if there {
		err := db.QueryRowContext(ctx, "SELECT uid, generation FROM "+tenancy.MetaTable+" LIMIT 1").Scan(&got.UID, &got.Generation)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("reading %s: %w", tenancy.MetaTable, err)
		}
	}
	switch got {
	case want:
		return nil
	case tenancy.Identity{}:
		return fmt.Errorf("%w: it does not say whose it is: %s has no row, want %s", tenancy.ErrWrongDatabase, tenancy.MetaTable, want)
	}
	return fmt.Errorf("%w: %s says %s, want %s", tenancy.ErrWrongDatabase, tenancy.MetaTable, got, want)
}
