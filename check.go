package tenancy

import (
	"context"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// Check reports whether the tenant is served: it opens the tenant's pool, as
// the first statement would, and returns what that statement would fail with,
// [ErrTenantNotFound], [ErrTenantSuspended] or [ErrTenantBehind] for instance.
// A pool that is open answers at once, and a tenant that could not be opened
// is remembered for up to a second. It takes no connection, but for
// [SchemaRange.Current] and [SchemaRange.Migrate] where the pool is not open
// yet, so it does not say whether the server answers; and a tenant may be
// suspended right after.
//
// It is for what has to refuse before it begins: see tenancyhttp.Config.Check.
func (p *Plugin) Check(ctx context.Context, id string) error {
	if tenant.Validate(id) != nil {
		return checkID("check", id) // which allocates, and says why
	}
	e, err := p.cache.acquire(ctx, id, false)
	if err != nil {
		return err
	}
	p.cache.release(e)
	return nil
}
