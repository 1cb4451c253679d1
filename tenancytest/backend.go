package tenancytest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// ErrNoServer is returned by [Backend.Open] where there is nothing to test on.
// Tests are skipped then.
var ErrNoServer = errors.New("no database server to test on")

// Backend is where databases come from: testsqlite.Backend{} or
// testpg.Backend{}.
type Backend interface {
	// Open finds or starts the server, and removes what dead runs have left
	// on it. [ErrNoServer] says that there is none.
	Open(ctx context.Context) (Server, error)
}

// Server makes the databases of one run of tests. Its methods may be called
// from any goroutine.
type Server interface {
	// Engine is what opens the DSNs of Databases.
	Engine() tenancy.Engine
	// Dialector is GORM's for a pool of connections to a Database.
	Dialector(pool gorm.ConnPool) gorm.Dialector
	// Template makes a database by build, to copy others from, and returns its
	// name. One that is shared outlives the run, and is not made again where
	// there is one of the key already, by whatever process; any number of them may
	// call Template at once. If build fails, or the process dies, there is no template.
	Template(ctx context.Context, key string, shared bool, build func(ctx context.Context, db *sql.DB) error) (string, error)
	// Clone copies the template. The copy has an Identity of its own.
	Clone(ctx context.Context, template string) (Database, error)
	// Close removes what the run has made, except what is kept.
	Close(ctx context.Context) error
}

// Database is a copy of a template.
type Database interface {
	// DSN leads there.
	DSN() string
	// Identity is what the database says of itself.
	Identity() tenancy.Identity
	// Sandbox returns a sandbox in it; nil where a copy for each test is as
	// cheap.
	Sandbox() (Sandbox, error)
	// Discard says that it is no longer needed. It may be removed at once, or
	// when the Server is closed.
	Discard()
	// Keep keeps the database after the run, for whoever looks into why the
	// test failed. It says how to connect, and how long it stays, in words. All
	// connections are closed.
	Keep(ctx context.Context, test string) (string, error)
}

// Sandbox is a database that tests use one after the other. What one does is
// undone before the next.
type Sandbox interface {
	// Connector opens connections that share one physical connection, in one
	// transaction.
	Connector() driver.Connector
	// Begin begins a test's turn.
	Begin(ctx context.Context) error
	// End undoes all that was done since Begin. Connections that are still open fail
	// from then on.
	End(ctx context.Context) error
	// Close closes the physical connection, until the next Begin.
	Close() error
}
