package tenancy

import (
	"context"
	"errors"
	"time"
)

// found is what is known of a tenant before its pool may be used.
type found struct {
	database Database
	version  schemaVersion
	pool     *pool // nil as long as no connection was needed
}

// open opens the tenant's pool if its schema fits the application.
func (o *dbOpener) open(ctx context.Context, id string, at func(step)) (tenantPool, error) {
	f, err := o.look(ctx, id, at)
	var cause error
	if err == nil && o.schema.Migrate != nil && o.schema.behind(f.version) {
		f, cause, err = o.bringForward(ctx, id, f, at)
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // Close: no policy may open it now
	}
	if err == nil && o.schema.behind(f.version) {
		behind := o.schema.behindError(id, f.version, cause)
		if o.schema.Behind == BehindIgnore {
			o.observe(Event{Kind: EventBehind, Tenant: id, Err: behind})
		} else if err = forget(o.resolver, id, false); err == nil {
			err = behind
		}
	}
	if err == nil && f.pool == nil {
		f.pool, err = o.openDatabase(id, f.database)
	}
	if err == nil && o.schema.ahead(f.version) {
		o.observe(Event{Kind: EventAhead, Tenant: id, Err: o.schema.aheadError(id, f.version)})
	}
	if f.pool == nil {
		return nil, err // not a nil *pool, which is no nil tenantPool
	}
	return f.pool, err
}

// look finds out where the tenant is, and its version if anybody asks.
func (o *dbOpener) look(ctx context.Context, id string, at func(step)) (f found, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if f.database, err = o.resolve(ctx, id); err != nil || !o.schema.asks() {
		return f, err
	}
	f.version = schemaVersion{f.database.Schema, f.database.Schema != 0}
	if f.version.known || o.schema.Current == nil {
		return f, nil
	}
	if f.pool, err = o.openDatabase(id, f.database); err != nil {
		return f, err
	}
	at(stepVersion)
	f.version, err = o.current(ctx, id, f.pool)
	return f, err
}

func (o *dbOpener) current(ctx context.Context, id string, p *pool) (_ schemaVersion, err error) {
	defer recovered(id, "Config.Schema.Current", &err)
	v, err := o.schema.Current(ctx, p.db)
	if err != nil {
		return schemaVersion{}, &Error{Op: "open", Tenant: id, Err: ErrUnavailable, Cause: err,
			Detail: "the version of its schema can't be read",
			Hint:   "it is tried again within a second"}
	}
	return schemaVersion{v, true}, nil
}

// bringForward migrates the tenant and looks again. cause is why it is behind
// all the same, err why that can't be known.
func (o *dbOpener) bringForward(ctx context.Context, id string, f found, at func(step)) (_ found, cause, err error) {
	if f.pool != nil {
		// No connection of ours is in the way of the migration, and none
		// outlives it.
		f.pool.retire()
		select {
		case <-f.pool.gone():
		case <-ctx.Done():
			return f, nil, context.Cause(ctx)
		case <-time.After(openTimeout):
			return f, nil, &Error{Op: "open", Tenant: id, Err: ErrUnavailable,
				Detail: "the connection that read the version of its schema does not end"}
		}
		f.pool = nil
	}
	at(stepMigrate)
	if cause := o.forward.run(ctx, id); cause != nil {
		return f, cause, nil
	}
	if err = forget(o.resolver, id, true); err == nil {
		f, err = o.look(ctx, id, at)
	}
	switch {
	case err != nil:
		return f, nil, err
	case o.schema.behind(f.version):
		o.forward.fail(id, errNoHelp)
		return f, errNoHelp, nil
	}
	o.forward.forgive(id)
	return f, nil, nil
}

// forget makes a Resolver that remembers ask again the next time: a tenant that
// was refused may have been migrated by another process. Unless all is set, a
// Watcher is spared, which is told of that: of thousands of tenants that wait for
// their migration, each would be asked for every second.
func forget(r Resolver, id string, all bool) (err error) {
	defer recovered(id, "the Resolver", &err)
	if links, ok := r.(chain); ok {
		for _, link := range links {
			err = errors.Join(err, forget(link, id, all))
		}
		return err
	}
	if _, hears := r.(Watcher); hears && !all {
		return nil
	}
	if f, ok := r.(Forgetter); ok {
		f.Forget(id)
	}
	return nil
}
