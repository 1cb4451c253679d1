package tenancy

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// Resolver says where a tenant's database is.
//
// It is asked when a tenant's pool is opened and again after
// [Config.Recheck], never per statement. ctx has a deadline of its own, not
// the first caller's, and means the main database: a Resolver may query main
// models through the same *gorm.DB.
type Resolver interface {
	// Resolve returns the database of the tenant id, which is valid.
	// [ErrTenantNotFound] says that there is none, [ErrTenantSuspended] that
	// it is not to be served; any other error means that it can't be known
	// now, and a pool that is open stays.
	Resolve(ctx context.Context, id string) (Database, error)
}

// ResolverFunc is a function that is a [Resolver].
type ResolverFunc func(ctx context.Context, id string) (Database, error)

// Resolve calls f.
func (f ResolverFunc) Resolve(ctx context.Context, id string) (Database, error) { return f(ctx, id) }

// Static is a [Resolver] for a fixed set of tenants. It must not be changed
// once it is in use.
type Static map[string]Database

// Resolve returns s[id], or [ErrTenantNotFound].
func (s Static) Resolve(_ context.Context, id string) (Database, error) {
	if d, ok := s[id]; ok {
		return d, nil
	}
	return Database{}, ErrTenantNotFound
}

// replicated reports whether any tenant has replicas.
func (s Static) replicated() bool {
	for _, d := range s {
		if len(d.Replicas) > 0 {
			return true
		}
	}
	return false
}

// Chain returns a Resolver that asks rs one after the other. Only
// [ErrTenantNotFound] goes on to the next; any other error ends the search, so
// that a resolver that is down never hands its tenants to another. It is a
// [Watcher] for those of rs that are.
func Chain(rs ...Resolver) Resolver { return chain(slices.Clone(rs)) }

type chain []Resolver

func (c chain) Resolve(ctx context.Context, id string) (Database, error) {
	for _, r := range c {
		d, err := r.Resolve(ctx, id)
		if !errors.Is(err, ErrTenantNotFound) {
			return d, err
		}
	}
	return Database{}, ErrTenantNotFound
}

// Watch runs the Watch of every link, and returns when the first one ends or
// panics: the caller starts all of them again, and no change is missed
// silently. If no link is a Watcher it waits for ctx.
func (c chain) Watch(ctx context.Context, changed func(id string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		once  sync.Once
		first error
		any   bool
	)
	for _, r := range c {
		w, ok := r.(Watcher)
		if !ok {
			continue
		}
		any = true
		wg.Go(func() {
			err := runWatch(ctx, w, changed)
			once.Do(func() { first = err })
			cancel()
		})
	}
	if !any {
		<-ctx.Done()
		return ctx.Err()
	}
	wg.Wait()
	return first
}

// Forgetter may be implemented by a [Resolver] that remembers answers.
type Forgetter interface {
	// Forget makes the next Resolve of id find out anew. It is called when a
	// database says that it is not the tenant's (see [Identity]), after
	// [SchemaRange.Migrate], and for a Resolver that is no [Watcher] after
	// [ErrTenantBehind].
	Forget(id string)
}

// Forget tells every link that is a [Forgetter].
func (c chain) Forget(id string) {
	for _, r := range c {
		if f, ok := r.(Forgetter); ok {
			f.Forget(id)
		}
	}
}

// Watcher may be implemented by a [Resolver] that hears of changes.
type Watcher interface {
	// Watch calls changed for every tenant whose [Database] changed or went
	// away, until ctx ends or the source of news is lost. changed does not
	// block and may be called from any goroutine. When Watch returns before
	// ctx ends it is called again, after a pause, and every open pool is
	// resolved again, since news may have been missed.
	Watch(ctx context.Context, changed func(id string)) error
}

// Database says where a tenant's database is and how to use it. The zero value
// is an error.
type Database struct {
	// DSN is opened by [Config.Engine].
	DSN string
	// Connector is used instead of DSN: for rotating credentials, custom
	// dialers, other drivers. One that was resolved anew does not retire an
	// open pool by itself: change Version too.
	Connector driver.Connector
	// Server names the server that the database is on: databases that name
	// the same one share its budget ([Limits.MaxConnsPerServer]) and its
	// breaker. Defaults to what [Engine.Server] says of the DSN, or a
	// Connector that is a [ServerConnector] of itself. Set it where one server
	// has several names, and for other Connectors: databases whose server is
	// not known share one budget, and have no breaker.
	Server string
	// MaxConns is the greatest number of connections to this database, in
	// place of [Limits.MaxConnsPerTenant]. Zero means that one.
	MaxConns int
	// Version is whatever changes when the rest does: a generation, a
	// timestamp. A change retires the open pool.
	Version string
	// Schema is the version of the database's schema, as far as the Resolver
	// knows; 0 means that it does not. It is held against [Config.Schema]. A
	// change retires the open pool, whose connections may have plans of the
	// old schema.
	Schema int64
	// Identity is what the database must say of itself. A change retires the
	// open pool. The zero value asks nothing.
	Identity Identity
	// Replicas are copies of the database that the server keeps up to date, for
	// reads: see [Config.ReplicaPolicy]. Each sets DSN or Connector, and Server
	// and MaxConns if need be; it is on a server of its own, with that one's
	// budget and breaker. The rest is the primary's, Identity too: a copy that is
	// another tenant's, or of another generation, is not read. Engines open a
	// DSN such that nothing can be written ([ReplicaEngine]); a Connector has to
	// see to that by itself. A change retires the open pool; another order is
	// none.
	Replicas []Database
}

func (d Database) validate() error {
	switch {
	case d.DSN == "" && d.Connector == nil:
		return errors.New("its Database has neither a DSN nor a Connector")
	case d.DSN != "" && d.Connector != nil:
		return errors.New("its Database has a DSN and a Connector; set one of them")
	case d.MaxConns < 0:
		return fmt.Errorf("its Database.MaxConns is negative: %d", d.MaxConns)
	case d.Schema < 0:
		return fmt.Errorf("its Database.Schema is negative: %d", d.Schema)
	}
	return d.validateReplicas()
}

// needsEngine reports whether d or a replica has a DSN.
func (d Database) needsEngine() bool {
	return d.DSN != "" || slices.ContainsFunc(d.Replicas, Database.needsEngine)
}

// changed reports whether a pool opened for old must go when the tenant is now
// at d.
func (d Database) changed(old Database) bool {
	return d.DSN != old.DSN || (d.Connector == nil) != (old.Connector == nil) ||
		d.Version != old.Version || d.Identity != old.Identity || d.MaxConns != old.MaxConns || d.Server != old.Server ||
		d.Schema != old.Schema || !sameReplicas(d.Replicas, old.Replicas)
}

// place is equal for Databases that are certainly the same one; nil when that
// can't be told. See places.
func (d Database) place() any {
	if d.Identity.UID != "" {
		return d.Identity.UID
	}
	if d.DSN != "" {
		return d.DSN
	}
	if t := reflect.TypeOf(d.Connector); t != nil && t.Kind() == reflect.Pointer {
		return d.Connector
	}
	return nil
}

// validate finds in advance what every statement of a tenant would fail with.
func (s Static) validate(engine Engine) error {
	owner := make(map[any]string, len(s))
	for id, d := range s {
		if err := tenant.Validate(id); err != nil {
			return fmt.Errorf("Resolver: %w", err)
		}
		if err := d.validate(); err != nil {
			return fmt.Errorf("Resolver: tenant %s: %w", id, err)
		}
		if d.needsEngine() && engine == nil {
			return fmt.Errorf("Resolver: tenant %s has a DSN but Engine is not set; set tenancypg.Engine{} or tenancysqlite.Engine{}", id)
		}
		for _, place := range d.places() {
			if other, ok := owner[place]; ok {
				return fmt.Errorf("Resolver: tenants %s and %s have the same database", min(id, other), max(id, other))
			}
			owner[place] = id
		}
	}
	return nil
}
