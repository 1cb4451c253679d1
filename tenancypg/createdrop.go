package tenancypg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// invalidLimit is the datconnlimit of a database whose DROP was interrupted
// (src/include/catalog/pg_database.h, DATCONNLIMIT_INVALID_DB).
const invalidLimit = -2

var errGone = errors.New("the database does not exist")

// facts are what pg_database says of a database.
type facts struct {
	there    bool
	invalid  bool
	template bool // datistemplate
	allow    bool // datallowconn
	fresh    bool // nobody has changed who may connect
	oid      uint32
	comment  string
	owned    bool // the application has the owner's rights
}

func (f facts) sealed() bool { return f.there && f.template && !f.allow && !f.invalid }

func (ses *session) facts(ctx context.Context, name string) (f facts, err error) {
	err = ses.admin(ctx, func(pc *pgx.Conn) error { return ses.factsOn(ctx, pc, name, &f) })
	return f, err
}

func (ses *session) factsOn(ctx context.Context, pc *pgx.Conn, name string, f *facts) error {
	var limit int
	err := pc.QueryRow(ctx, `
		SELECT oid, datconnlimit, datistemplate, datallowconn, datacl IS NULL,
			coalesce(shobj_description(oid, 'pg_database'), ''), pg_has_role($2::oid, datdba, 'USAGE')
		FROM pg_database WHERE datname = $1`, name, ses.roles.app).
		Scan(&f.oid, &limit, &f.template, &f.allow, &f.fresh, &f.comment, &f.owned)
	if errors.Is(err, pgx.ErrNoRows) {
		*f = facts{}
		return nil
	}
	f.there, f.invalid = err == nil, limit == invalidLimit
	return err
}

// Exists implements [catalog.Session].
func (ses *session) Exists(ctx context.Context) (bool, error) {
	f, err := ses.facts(ctx, ses.name)
	if err != nil {
		return false, explain(fmt.Sprintf("looking for %q", ses.name), err)
	}
	return f.there && !f.invalid, nil
}

// Create implements [catalog.Session].
func (ses *session) Create(ctx context.Context, template string) error {
	ses.closeTenant()
	if err := ses.create(ctx, template); err != nil {
		return explain(fmt.Sprintf("creating %q", ses.name), err)
	}
	return nil
}

func (ses *session) create(ctx context.Context, template string) error {
	f, err := ses.facts(ctx, ses.name)
	if err != nil {
		return err
	}
	if f.invalid {
		if err := ses.drop(ctx); err != nil {
			return err
		}
		f = facts{}
	}
	if !f.there {
		if err := ses.createNew(ctx, template); err != nil {
			return err
		}
		f.fresh = true
	}
	if !f.fresh || f.template {
		return nil
	}
	// It was made with connections refused, so that nobody has got in by the
	// right that PUBLIC has to a new database. Where rights can't keep the
	// application out, it stays so until Open.
	sql := "REVOKE CONNECT, TEMPORARY ON DATABASE " + ses.ident + " FROM PUBLIC"
	if ses.roles.apart {
		sql += "; ALTER DATABASE " + ses.ident + " ALLOW_CONNECTIONS true"
	}
	return ses.exec(ctx, sql)
}

func (ses *session) createNew(ctx context.Context, template string) error {
	from := "template0" // nobody is ever connected to it
	if template != "" {
		if err := ses.s.checkDatabase(template); err != nil {
			return err
		}
		t, err := ses.facts(ctx, template)
		if err != nil {
			return err
		}
		if !t.sealed() {
			return fmt.Errorf("%w: %q is not there, or was not sealed", catalog.ErrNoTemplate, template)
		}
		from = template
	}
	sql := "CREATE DATABASE " + ses.ident + " TEMPLATE " + quote(from) + " ALLOW_CONNECTIONS false IS_TEMPLATE false"
	if ses.roles.version >= 150000 {
		// The other strategy forces two checkpoints of the whole server.
		sql += " STRATEGY wal_log"
	}
	err := ses.exec(ctx, sql)
	switch code(err) {
	case "42P04", "23505":
		// Somebody without our lock has made it at the same time; of two that
		// do, one gets the second code, of pg_database's index.
		return nil
	case "3D000":
		return fmt.Errorf("%w: %w", catalog.ErrNoTemplate, err)
	}
	return err
}

// Drop implements [catalog.Session]. Prepared transactions, replication slots
// and subscriptions keep the server from dropping a database, also by force.
func (ses *session) Drop(ctx context.Context) error {
	ses.closeTenant()
	if err := ses.drop(ctx); err != nil {
		err = fmt.Errorf("%w%s", err, ses.prepared(ctx))
		return explain(fmt.Sprintf("dropping %q", ses.name), err)
	}
	return nil
}

func (ses *session) drop(ctx context.Context) error {
	f, err := ses.facts(ctx, ses.name)
	if err != nil || !f.there {
		return err
	}
	if f.template && !f.invalid {
		if err := ses.exec(ctx, "ALTER DATABASE "+ses.ident+" IS_TEMPLATE false"); err != nil {
			return err
		}
	}
	return ses.exec(ctx, "DROP DATABASE IF EXISTS "+ses.ident+" WITH (FORCE)")
}

// Seal implements [catalog.Session]. Whoever else is connected is not ended,
// but makes it fail with [catalog.ErrNotFenced]; the database then takes no
// new connections.
func (ses *session) Seal(ctx context.Context) error {
	ses.closeTenant()
	doing := fmt.Sprintf("sealing %q", ses.name)
	f, err := ses.facts(ctx, ses.name)
	switch {
	case err != nil:
		return explain(doing, err)
	case !f.there || f.invalid:
		return explain(doing, errGone)
	case f.sealed():
		return nil
	}
	if err := ses.exec(ctx, "ALTER DATABASE "+ses.ident+" ALLOW_CONNECTIONS false"); err != nil {
		return explain(doing, err)
	}
	e := exit{ses: ses, oid: f.oid, keep: noAdmins}
	left, err := e.wait(ctx, sealPatience)
	if err != nil {
		return explain(doing, err)
	}
	if len(left) > 0 {
		return explain(doing, fmt.Errorf("%w by %s", catalog.ErrNotFenced, describe(left)))
	}
	if err := ses.exec(ctx, "ALTER DATABASE "+ses.ident+" IS_TEMPLATE true ALLOW_CONNECTIONS false"); err != nil {
		return explain(doing, err)
	}
	return nil
}

// Rename implements [catalog.Session].
func (ses *session) Rename(ctx context.Context, to string) error {
	ses.closeTenant()
	doing := fmt.Sprintf("renaming %q", ses.name)
	if err := ses.s.checkDatabase(to); err != nil {
		return err
	}
	f, err := ses.facts(ctx, ses.name)
	if err == nil && !f.there {
		if f, err = ses.facts(ctx, to); err == nil && !f.there {
			err = errGone
		}
		if err != nil {
			return explain(doing, err)
		}
		return nil
	}
	if err != nil {
		return explain(doing, err)
	}
	// The fence lets the administrator's sessions stay; here nobody's may.
	e := exit{ses: ses, oid: f.oid, keep: noAdmins}
	left, err := e.terminate(ctx)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%w by %s", catalog.ErrNotFenced, describe(left))
	}
	if err == nil {
		err = ses.exec(ctx, "ALTER DATABASE "+ses.ident+" RENAME TO "+quote(to))
	}
	if err != nil {
		return explain(doing, err)
	}
	return nil
}

// sealPatience is how long the connections that were just closed may take to
// disappear.
const sealPatience = 3 * time.Second
