package catalog

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"time"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// Server makes, opens, fences and drops the databases of one place: a server,
// or a directory of files. Packages tenancypg and tenancysqlite have one each.
// Its methods may be called from any goroutine.
//
// A database's name is at most 63 bytes without NUL, and nothing else about it
// may be trusted: an adopted one can hold quotes, spaces or dots. It must never
// reach SQL unquoted, a DSN by joining strings, or a path outside of the
// directory.
type Server interface {
	// Database says how the application reaches the database name. It does no
	// I/O. The catalog sets Server, MaxConns, Version and Identity itself.
	Database(name string) (tenancy.Database, error)

	// Session begins administrative work on the database name, which need not
	// exist. Only one session at a time has a name, in all processes: Session
	// waits for another's end, or until ctx ends. It ends by Close, and when
	// the process dies. With steal the holder is known to have lost its right
	// to the name, because it hangs: its session is ended, if the place can do
	// that, so that nothing it does afterwards has an effect.
	Session(ctx context.Context, name string, steal bool) (Session, error)

	// Databases lists all that is there and could be a catalog's: every
	// database or file, and what interrupted work has left.
	Databases(ctx context.Context) ([]Found, error)

	// Dialector returns GORM's dialect on db, for hooks that want a *gorm.DB.
	Dialector(db *sql.DB) gorm.Dialector
}

// Session is exclusive administrative work on one database. Its methods are
// called by one goroutine at a time. Each can be called again after it failed
// or the process died in it: done twice is the same as done once. Errors say
// what to do where that can be known, and hold no password.
type Session interface {
	// Exists reports whether the database is there, and can be used.
	Exists(ctx context.Context) (bool, error)

	// Create makes the database, as a copy of the sealed template or empty if
	// template is "". One that is there already stays as it is; but what an
	// interrupted Create or Drop left in a state that can't be used is made
	// anew. The application can't connect to it before Open. A template that
	// is not there, or not sealed, is [ErrNoTemplate].
	Create(ctx context.Context, template string) error

	// Mark writes whose the database is: into the database, where
	// [tenancy.Identity] is checked (UID and Generation, see
	// [tenancy.MetaTable]), and where Owner reads it. A database that is
	// marked already is an error, [ErrForeign], unless it has this catalog and
	// UID, or is marked by [Meta.Replaces]; a generation never goes back. If
	// the application may read nothing else of a database, it may read this.
	Mark(ctx context.Context, m Meta) error

	// Owner returns what Mark wrote; the zero Meta if it never did.
	Owner(ctx context.Context) (Meta, error)

	// Open lets the application in: its grants on what is in the database
	// now and on what will be, the server's settings, and at last the right to
	// connect.
	Open(ctx context.Context) error

	// Fence keeps the application out: no connection can begin any more, those
	// that are there may finish for as long as drain, and are then ended. When
	// Fence returns nil, none is left, and that was verified. Where the place
	// can't do that (SQLite can't end another process's connection) the error
	// is [ErrNotFenced], and it may be called again.
	Fence(ctx context.Context, drain time.Duration) error

	// Rename gives the database, which is fenced, another name. One that has it
	// already, and not the old one, is no error. The session stays that of the
	// old name, and ends.
	Rename(ctx context.Context, to string) error

	// Seal makes the database a template: complete, closed to everyone. One
	// that is not sealed is a half-made one.
	Seal(ctx context.Context) error

	// Drop removes the database and all that belongs to it, with whatever is
	// connected. It also finishes a Drop that was interrupted. One that is
	// not there is no error.
	Drop(ctx context.Context) error

	// DB opens the database with the administrator's rights, fenced or not,
	// for migrations and seeds. The caller closes it, before Close.
	DB(ctx context.Context) (*sql.DB, error)

	// Dump writes all of the database, as it is at one moment, to w, in the
	// format that Restore reads.
	Dump(ctx context.Context, w io.Writer) error

	// Restore fills the database from r, in place of whatever an interrupted
	// Restore or Create left under its name. What Mark wrote there before the
	// dump is in it and is replaced by the next Mark with that UID in
	// [Meta.Replaces].
	Restore(ctx context.Context, r io.Reader) error

	// Close ends the session.
	Close() error
}

// Meta says whose a database is.
type Meta struct {
	// Catalog is the id of the catalog that made the database.
	Catalog string
	tenancy.Identity
	// Replaces allows Mark to take the database over from another UID: any
	// one if it is "*".
	Replaces string
}

// Found is something that is on a server.
type Found struct {
	Name string
	// Catalog and UID are what Owner says, where that is known without
	// opening the database; otherwise "".
	Catalog, UID string
	// Template is true for what Seal sealed.
	Template bool
	// Broken says why it can't be used: left by an interrupted Create or Drop.
	Broken string
}

// Listener hears what the main database announces. tenancypg.Server is one.
type Listener interface {
	// Listen calls heard with the payload of each notification on channel, on
	// a connection of main that it keeps for as long. It calls ready once it
	// hears, and returns when the connection is lost, also silently, or ctx
	// ends.
	Listen(ctx context.Context, main *sql.DB, channel string, ready func(), heard func(payload string)) error
}

var (
	// ErrNoTemplate is returned by Session.Create when the template is not
	// there or was not finished.
	ErrNoTemplate = errors.New("no such template database")
	// ErrForeign is returned for a database that belongs to another tenant or
	// another catalog.
	ErrForeign = errors.New("database belongs to another tenant or catalog")
	// ErrNoAdmin is returned by a server that was given no administrator.
	ErrNoAdmin = errors.New("this process only serves tenants, and administers none")
	// ErrNotFenced is returned when it can't be guaranteed that no process
	// uses the database any more.
	ErrNotFenced = errors.New("database is still in use")
)
