package migrate

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

var (
	// ErrLocked is returned when another process has a database's migration
	// lock and did not give it up in [Lock.Wait].
	ErrLocked = errors.New("another process is migrating the database")
	// ErrPooler is returned when a database is reached through a connection
	// pooler, where session locks and settings hold nothing. Migrations need a
	// direct connection.
	ErrPooler = errors.New("migrations need a direct connection, not one through a pooler")
	// ErrFenced is returned when a database refuses all connections, the
	// administrator's too: that of a suspended tenant can. A session of the
	// catalog's server can open it.
	ErrFenced = errors.New("the database refuses all connections")
)

// Lock says how a database is opened for migrations.
type Lock struct {
	// Identity is what the database must say of itself, before anything is
	// done in it; otherwise the error is tenancy.ErrWrongDatabase. The zero
	// value asks nothing.
	Identity tenancy.Identity
	// LockTimeout bounds each wait of a statement for a lock that somebody
	// else holds, on a table for instance, and StatementTimeout each
	// statement. Zero means no bound.
	LockTimeout, StatementTimeout time.Duration
	// Wait bounds the wait for the migration lock itself. Zero means as long
	// as the ctx.
	Wait time.Duration
	// Steal says that whoever has the lock has lost the right to it, because
	// he was silent for too long: his session is ended, if the server can do
	// that, so that nothing he does afterwards has an effect.
	Steal bool
	// ReadOnly takes no lock, waits for nobody, and opens a database that
	// can't be written to.
	ReadOnly bool
}

// Exclusive is a database that is open under its migration lock. When the lock
// is lost, because its connection is, DB can't connect any more.
type Exclusive struct {
	// DB has at most two connections. A migration that is not in a transaction
	// of its own may need the second.
	DB *sql.DB
	// Close closes DB and gives the lock back. It is called once.
	Close func() error
}

// Locker opens the databases of one kind of server for migrations. The Engines
// of packages tenancypg and tenancysqlite are Lockers. Its methods may be
// called from any goroutine.
type Locker interface {
	// LockDatabase opens d, which must be reached without a pooler.
	LockDatabase(ctx context.Context, d tenancy.Database, l Lock) (*Exclusive, error)
	MainLocker
	Inspector
	// Classify is tenancy.Engine's.
	Classify(err error) tenancy.Fault
}

// MainLocker opens a database for migrations that is open already: the main
// one.
type MainLocker interface {
	// LockMain does not wait for what is in progress on db, and closing what it
	// returns leaves db open.
	LockMain(ctx context.Context, db *sql.DB, l Lock) (*Exclusive, error)
}

// Inspector looks at what is in a database.
type Inspector interface {
	// Inspect reads what is in db, and writes nothing.
	Inspect(ctx context.Context, db *sql.DB) (Inspection, error)
}

// Inspection is what an [Inspector] found.
type Inspection struct {
	// Schema is a digest of all that migrations make: tables with their
	// columns and constraints, indexes, views, functions. Two databases of one
	// schema have the same, also if their columns stand in another order. The
	// tables of migration tools, and tenancy.MetaTable, are left out.
	Schema string
	// Invalid are the indexes that can't be used: those that an interrupted
	// CREATE INDEX CONCURRENTLY has left.
	Invalid []string
}
