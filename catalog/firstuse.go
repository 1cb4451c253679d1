package catalog

import (
	"context"
	"errors"

	"github.com/gorm-tenancy/tenancy"
)

// FirstUse is a tenancy.Resolver that creates tenants; see
// [Catalog.OnFirstUse].
type FirstUse struct {
	catalog *Catalog
	allow   func(ctx context.Context, id string) (CreateOptions, error)
}

// OnFirstUse returns a Resolver that creates a tenant that is not there, when
// it is first used. allow is asked before, and says how; its error refuses the
// tenant (tenancy.ErrTenantNotFound, for instance). Let nobody from outside
// choose ids freely: each one that is allowed costs a database.
//
// The opening of a pool waits at most 10 seconds for it; a creation that takes
// longer is gone on with at the next use.
func (c *Catalog) OnFirstUse(allow func(ctx context.Context, id string) (CreateOptions, error)) *FirstUse {
	return &FirstUse{c, allow}
}

// Resolve implements tenancy.Resolver.
func (f *FirstUse) Resolve(ctx context.Context, id string) (tenancy.Database, error) {
	d, err := f.catalog.Resolve(ctx, id)
	if !errors.Is(err, tenancy.ErrTenantNotFound) {
		return d, err
	}
	if f.allow == nil {
		return d, err
	}
	opts, err := f.allow(ctx, id)
	if err != nil {
		return d, err
	}
	if _, err := f.catalog.Create(ctx, id, opts); err != nil {
		return d, err
	}
	return f.catalog.Resolve(ctx, id)
}

// Watch implements tenancy.Watcher.
func (f *FirstUse) Watch(ctx context.Context, changed func(id string)) error {
	return f.catalog.Watch(ctx, changed)
}
