package tenancypg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

const (
	// dbConns bounds what DB hands out: one that works, and one beside it, for
	// a lock.
	dbConns = 2
	// recloseTimeout bounds what is done to shut a database again after ctx
	// has ended.
	recloseTimeout = 10 * time.Second
)

// adminConnector connects a session to its database.
type adminConnector struct {
	*connector
	ses *session
}

// Connect implements [driver.Connector].
func (c adminConnector) Connect(ctx context.Context) (dc driver.Conn, err error) {
	err = c.ses.admitted(ctx, func() error {
		dc, err = c.connector.Connect(ctx)
		return err
	})
	if err != nil && dc != nil {
		_ = dc.Close()
		dc = nil
	}
	return dc, err
}

// admitted calls connect while the database takes connections, and afterwards
// makes sure that the session still has its lock: a successor ends all
// connections that it finds once it has the lock, so that one which was made
// before this look can't outlive it. mu is held, and so is the lock's
// connection, so connect must not use the session.
func (ses *session) admitted(ctx context.Context, connect func() error) error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	var f facts
	err := ses.adminLocked(ctx, func(pc *pgx.Conn) error { return ses.factsOn(ctx, pc, ses.name, &f) })
	switch {
	case err != nil:
		return err
	case !f.there:
		return errGone
	case f.allow:
		if err := connect(); err != nil {
			return err
		}
		return ses.adminLocked(ctx, func(pc *pgx.Conn) error { return execSimple(ctx, pc, "") })
	}
	return ses.throughFence(ctx, f, connect)
}

// throughFence lets connections in for as long as connect runs, and ends those
// that are not the session's own.
func (ses *session) throughFence(ctx context.Context, f facts, connect func() error) (err error) {
	allow := func(ctx context.Context, yes bool) error {
		return ses.adminLocked(ctx, func(pc *pgx.Conn) error {
			return execSimple(ctx, pc, fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS %t", ses.ident, yes))
		})
	}
	defer func() {
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), recloseTimeout)
		defer cancel()
		if closeErr := allow(again, false); err == nil {
			err = closeErr
		}
		e := exit{ses: ses, oid: f.oid, keep: ses.token, locked: true}
		left, closeErr := e.terminate(again)
		if closeErr == nil && len(left) > 0 {
			closeErr = fmt.Errorf("%w by %s", catalog.ErrNotFenced, describe(left))
		}
		if err == nil {
			err = closeErr
		}
	}()
	if err := allow(ctx, true); err != nil {
		return err
	}
	return connect()
}

// openTenant returns a pool of the administrator's connections to the database.
func (ses *session) openTenant() (*sql.DB, error) { return ses.openTenantWith(nil) }

func (ses *session) openTenantWith(params map[string]string) (*sql.DB, error) {
	cfg := ses.s.adm.Copy()
	maps.Copy(cfg.RuntimeParams, params)
	cfg.RuntimeParams["application_name"] = ses.token
	// What ServerConfig.Settings sets is the application's; these precede it.
	for name, value := range map[string]string{"statement_timeout": "0", "default_transaction_read_only": "off"} {
		if _, ok := cfg.RuntimeParams[name]; !ok {
			cfg.RuntimeParams[name] = value
		}
	}
	durable(cfg)
	c, err := connectorAt(ses.s.cfg.AdminEngine, cfg, ses.name)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(adminConnector{c, ses})
	db.SetMaxOpenConns(dbConns)
	db.SetMaxIdleConns(dbConns)
	return db, nil
}

// DB implements [catalog.Session]. The pool has at most two connections, and
// is closed by Close if it was not before. A successor that steals the name
// ends them.
func (ses *session) DB(ctx context.Context) (*sql.DB, error) { return ses.dbWith(ctx, nil) }

// MigrationDB implements [catalog.SessionLocker].
func (ses *session) MigrationDB(ctx context.Context, l migrate.Lock) (*sql.DB, error) {
	params := map[string]string{
		"lock_timeout":      milliseconds(l.LockTimeout),
		"statement_timeout": milliseconds(l.StatementTimeout),
	}
	if l.ReadOnly {
		params["default_transaction_read_only"] = "on"
	}
	return ses.dbWith(ctx, params)
}

func (ses *session) dbWith(ctx context.Context, params map[string]string) (*sql.DB, error) {
	doing := fmt.Sprintf("opening %q", ses.name)
	db, err := ses.openTenantWith(params)
	if err != nil {
		return nil, explain(doing, err)
	}
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close()
		return nil, explain(doing, err)
	}
	ses.mu.Lock()
	ses.handed = append(ses.handed, db)
	ses.mu.Unlock()
	return db, nil
}

// inTenant calls fn with a connection to the database, which is kept for the
// session's next step: connecting is half of what Mark and Open cost.
func (ses *session) inTenant(ctx context.Context, fn func(*pgx.Conn) error) error {
	if ses.tenant == nil {
		db, err := ses.openTenant()
		if err != nil {
			return err
		}
		ses.tenant = db
	}
	conn, err := ses.tenant.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	return Raw(conn, fn)
}
