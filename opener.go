package tenancy

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// openTimeout bounds one call of a Resolver, and of SchemaRange.Current with
// it. Callers that wait for it also have their own ctx.
const openTimeout = 10 * time.Second

// dbOpener opens the databases that a Resolver names.
type dbOpener struct {
	resolver Resolver
	engine   Engine
	limits   Limits
	servers  *servers
	schema   SchemaRange
	forward  *forward
	policy   dbresolver.Policy
	replicas replicaCount
	// replicated says that there are tenants with replicas. Without, nobody
	// looks for dbresolver's clauses, which costs an allocation: the first
	// look into a sync.Map makes it. Before the first of them is opened, reads
	// are the primary's.
	replicated atomic.Bool
	comment    bool // as Config.SQLComment
	observe    func(Event)
	stale      func(id string) // told when what was resolved proves wrong
}

// openDatabase opens the tenant's primary and its replicas. It dials nothing.
func (o *dbOpener) openDatabase(id string, d Database) (_ *pool, err error) {
	defer recovered(id, "the Engine", &err)
	connector, name, err := o.connector(id, d, false)
	if err != nil {
		return nil, err
	}
	type place struct {
		connector driver.Connector
		name      string
	}
	copies := make([]place, 0, len(d.Replicas)) // all are known before any server counts a pool more
	for _, r := range d.Replicas {
		connector, name, err := o.connector(id, r, true)
		if err != nil {
			return nil, err
		}
		copies = append(copies, place{connector, name})
	}
	p := newPool(id, connector, o.engine, o.servers.join(name), d, o.limits)
	if o.stale != nil {
		p.dialer.stale = func() { o.stale(id) }
	}
	comment := ""
	if o.comment {
		comment = sqlComment(id)
	}
	p.dialer.comment = comment
	if len(copies) == 0 {
		return p, nil
	}
	o.replicated.Store(true)
	p.left = make(chan struct{})
	p.replicas = &replicas{policy: o.policy, count: &o.replicas}
	for i, c := range copies {
		from := d.Replicas[i]
		from.Identity = d.Identity
		p.replicas.add(id, c.connector, o.engine, o.servers.join(c.name), from, o.limits)
		p.replicas.all[i].dialer.comment = comment
	}
	return p, nil
}

// connector returns what opens connections to d, and the name of its server.
func (o *dbOpener) connector(id string, d Database, replica bool) (connector driver.Connector, name string, err error) {
	connector = d.Connector
	if connector == nil {
		if o.engine == nil {
			return nil, "", &Error{Op: "open", Tenant: id, Err: ErrUnavailable,
				Detail: "its Database has a DSN but Config.Engine is not set",
				Hint:   "set tenancypg.Engine{} or tenancysqlite.Engine{}"}
		}
		open := o.engine.Connector
		if e, ok := o.engine.(ReplicaEngine); ok && replica {
			open = e.ReplicaConnector
		}
		if connector, err = open(d.DSN); err != nil {
			return nil, "", &Error{Op: "open", Tenant: id, Err: ErrUnavailable, Cause: err,
				Hint: "mend the DSN that the Resolver returns"}
		}
	}
	name = d.Server
	if name == "" {
		if d.DSN != "" {
			name = o.engine.Server(d.DSN)
		} else if c, ok := connector.(ServerConnector); ok {
			name = c.Server()
		}
	}
	return connector, name, nil
}

// recovered, deferred, makes a panic of somebody's code a failure to open this
// one tenant: it runs in a goroutine of ours, where it would end the process.
func recovered(id, who string, err *error) {
	if r := recover(); r != nil {
		*err = &Error{Op: "open", Tenant: id, Err: ErrUnavailable, Detail: fmt.Sprintf("%s panicked: %v", who, r)}
	}
}

// resolve asks the Resolver for a Database that can be used.
func (o *dbOpener) resolve(ctx context.Context, id string) (d Database, err error) {
	defer recovered(id, "the Resolver", &err)
	// A Resolver that reads the tenant list through the same *gorm.DB means
	// the main database, not the tenant that is being opened.
	d, err = o.resolver.Resolve(tenant.Main(ctx), id)
	if err == nil {
		if bad := d.validate(); bad != nil {
			return Database{}, &Error{Op: "open", Tenant: id, Err: ErrUnavailable, Cause: bad,
				Hint: "mend what the Resolver returns"}
		}
		return d, nil
	}
	switch {
	case errors.Is(err, ErrTenantNotFound):
		return Database{}, &Error{Op: "open", Tenant: id, Err: ErrTenantNotFound, Cause: err,
			Hint: "check the id, or make the Resolver know it"}
	case errors.Is(err, ErrTenantSuspended):
		return Database{}, &Error{Op: "open", Tenant: id, Err: ErrTenantSuspended, Cause: err,
			Hint: "it is served again when the Resolver says so"}
	}
	return Database{}, &Error{Op: "open", Tenant: id, Err: ErrUnavailable, Cause: err,
		Hint: "the Resolver is asked again within a second"}
}

func (o *dbOpener) recheck(ctx context.Context, id string, tp tenantPool) (Cause, error) {
	d, err := o.resolve(ctx, id)
	switch {
	case errors.Is(err, ErrTenantNotFound), errors.Is(err, ErrTenantSuspended):
		return CauseGone, nil
	case err != nil:
		return "", err // not known now: who is open stays served
	case d.changed(tp.(*pool).database):
		return CauseChanged, nil
	}
	return "", nil
}

// openDB is for [Plugin.OpenDB].
func (o *dbOpener) openDB(ctx context.Context, id string) (*sql.DB, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	d, err := o.resolve(ctx, id)
	if err != nil {
		return nil, err
	}
	d.Replicas = nil // it is for one *sql.DB
	p, err := o.openDatabase(id, d)
	if err != nil {
		return nil, err
	}
	return p.db, nil
}
