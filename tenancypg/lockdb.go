package tenancypg

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgxconn"
	"github.com/gorm-tenancy/tenancy/migrate"
)

var _ migrate.Locker = Engine{}

// idleInTransaction bounds how long a migration may leave its transaction
// idle, with all the locks that it has.
const idleInTransaction = time.Minute

// LockDatabase implements [migrate.Locker]. It makes one connection, which has
// the lock and runs the migrations as well, and asks one query of it. The lock
// is an advisory lock in the database itself. Close ends the connection, and the
// server gives the lock back when it has noticed that: some milliseconds later,
// for which whoever comes next waits.
//
// d must lead to the server itself, and its role must own what migrations
// change. On the pool's connections lock_timeout and statement_timeout are l's,
// whatever the DSN or the role says; a transaction that is idle for a minute is
// ended; and what was committed is on disk, unless the DSN sets
// synchronous_commit. A ctx that ends during a statement cancels it, and leaves
// the connection and its lock.
//
// l.Steal ends the sessions of the lock's holder, and those that a [Server] or
// this function has made in the database with the same role: it needs
// pg_signal_backend for a holder of another role. l.ReadOnly sets
// default_transaction_read_only: a guard against mistakes, which a statement
// that sets it back gets around.
//
// A database that refuses all connections is [migrate.ErrFenced].
func (e Engine) LockDatabase(ctx context.Context, d tenancy.Database, l migrate.Lock) (*migrate.Exclusive, error) {
	const doing = "opening a database for migrations"
	if d.Connector == nil {
		cfg, loc, err := e.parse(d.DSN)
		if err != nil {
			return nil, err
		}
		return lockDatabase(ctx, lockTarget{cfg, loc, e.BeforeConnect}, l)
	}
	if d.DSN != "" {
		return nil, explain(doing, errors.New("the Database has a DSN and a Connector"))
	}
	c, ok := d.Connector.(*connector)
	if !ok {
		return nil, explain(doing, fmt.Errorf("its Connector is a %T, of which no direct connection can be made; use one of Engine.Connector or Engine.ConnectorConfig", d.Connector))
	}
	return lockDatabase(ctx, c.lockTarget(), l)
}

// LockMain implements [migrate.Locker]. It makes a connection of its own, with
// the configuration of one of db's: for a db that is not this package's, that
// has the password by which that one logged in.
func (e Engine) LockMain(ctx context.Context, db *sql.DB, l migrate.Lock) (*migrate.Exclusive, error) {
	const doing = "opening the main database for migrations"
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, explain(doing, err)
	}
	var at lockTarget
	err = c.Raw(func(dc any) error {
		if ours := ourConn(dc); ours != nil {
			at = ours.from.lockTarget()
			return nil
		}
		pc, ok := pgxconn.Of(dc)
		if !ok {
			return fmt.Errorf("its connection is a %T, which does not tell how to make another one; open it with tenancypg.Engine, pgx's stdlib or gorm.io/driver/postgres", dc)
		}
		at.cfg = pc.Config()
		return nil
	})
	// Before the other one is made: the server may have no two for us.
	if err := errors.Join(err, c.Close()); err != nil {
		return nil, explain(doing, err)
	}
	return lockDatabase(ctx, at, l)
}

// LockDatabase is [Engine.LockDatabase] with the administrator's credentials,
// for the database of that name. It does not exclude a Session, except that one
// which steals ends it: what calls it must see to it that nobody creates, fences
// or drops the database meanwhile.
func (s *Server) LockDatabase(ctx context.Context, name string, l migrate.Lock) (*migrate.Exclusive, error) {
	if s.adm == nil {
		return nil, errNoAdmin
	}
	if err := s.checkDatabase(name); err != nil {
		return nil, err
	}
	c, err := connectorAt(s.cfg.AdminEngine, s.adm, name)
	if err != nil {
		return nil, err
	}
	return lockDatabase(ctx, c.lockTarget(), l)
}

// LockMain is [Engine.LockMain].
func (s *Server) LockMain(ctx context.Context, db *sql.DB, l migrate.Lock) (*migrate.Exclusive, error) {
	return s.cfg.AdminEngine.LockMain(ctx, db, l)
}

// lockTarget is where a database is, and how to log in.
type lockTarget struct {
	cfg    *pgx.ConnConfig
	loc    *time.Location
	before beforeConnect
}

func (c *connector) lockTarget() lockTarget { return lockTarget{c.cfg, c.loc, c.before} }

// ourConn returns the conn that dc is or wraps; nil if it is another package's.
func ourConn(dc any) *conn {
	for {
		if c, ok := dc.(*conn); ok {
			return c
		}
		w, ok := dc.(interface{ Unwrap() driver.Conn })
		if !ok {
			return nil
		}
		dc = w.Unwrap()
	}
}

func lockDatabase(ctx context.Context, at lockTarget, l migrate.Lock) (*migrate.Exclusive, error) {
	doing := fmt.Sprintf("opening %q for migrations", at.cfg.Database)
	c := &lockConnector{
		to:    newConnector(lockConfig(at.cfg, l), at.loc, at.before),
		lock:  l,
		token: migrationName + rand.Text()[:12],
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(dbConns)
	db.SetMaxIdleConns(dbConns) // closing the first one would lose the lock
	conn, err := db.Conn(ctx)
	if err == nil {
		err = conn.Close() // it goes to the pool
	}
	if err != nil {
		_ = db.Close()
		return nil, explain(doing, lockError(err))
	}
	return &migrate.Exclusive{DB: db, Close: func() error { return c.end(db) }}, nil
}

// lockConfig is base with the settings that migrations need. They are in the
// startup packet, which costs nothing and takes precedence over what the role,
// the database and the DSN's options set.
func lockConfig(base *pgx.ConnConfig, l migrate.Lock) *pgx.ConnConfig {
	cfg := base.Copy()
	settings := map[string]string{
		"application_name":                    waitingName,
		"lock_timeout":                        milliseconds(l.LockTimeout),
		"statement_timeout":                   milliseconds(l.StatementTimeout),
		"idle_in_transaction_session_timeout": milliseconds(idleInTransaction),
		// ReadOnly is set by the first query: a target_session_attrs of
		// read-write would refuse a connection that begins with it.
		"default_transaction_read_only": "off",
	}
	// The server takes names regardless of case: of two, chance would decide.
	maps.DeleteFunc(cfg.RuntimeParams, func(name, _ string) bool {
		_, ours := settings[strings.ToLower(name)]
		return ours
	})
	maps.Copy(cfg.RuntimeParams, settings)
	durable(cfg)
	cancels(cfg)
	return cfg
}

// milliseconds rounds up: 0 would mean no bound.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(int64((max(d, 0)+time.Millisecond-1)/time.Millisecond), 10)
}

const avoidPooler = "name the server itself in the DSN that migrations use"

// lockError says what an error of the connect means.
func lockError(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err
	}
	switch {
	// PgBouncer's "unsupported startup parameter", and whatever else it says
	// before the first query could tell.
	case fromPooler(e), e.Code == "08P01" && strings.Contains(e.Message, "startup parameter"):
		return fmt.Errorf("%w: %s (%w)", migrate.ErrPooler, avoidPooler, err)
	// The server's words are translated; its function's name is not
	// (src/backend/utils/init/postinit.c). The other 55000 there is of a
	// database whose DROP was interrupted.
	case e.Code == "55000" && e.Routine == "CheckMyDatabase":
		return fmt.Errorf("%w: %w", migrate.ErrFenced, err)
	}
	return err
}
