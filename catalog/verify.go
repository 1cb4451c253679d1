package catalog

import (
	"context"
	"errors"
	"iter"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// Verify looks into the databases of the tenants that f picks for drift; see
// migrate.Verify. Without states in f these are the active, suspended and ready
// ones. It connects to each of them, so it is for operators and not for a
// program's start.
func (c *Catalog) Verify(ctx context.Context, f Filter, opt migrate.VerifyOptions) (*migrate.Verification, error) {
	if c.cfg.Migrator == nil {
		return nil, &tenancy.Error{Op: "verify", Detail: "Config.Migrator is not set"}
	}
	if len(f.States) == 0 {
		f.States = fleetStates
	}
	return migrate.Verify(ctx, c.subjects(ctx, f), c.cfg.Migrator, opt)
}

func (c *Catalog) subjects(ctx context.Context, f Filter) iter.Seq2[migrate.Subject, error] {
	return func(yield func(migrate.Subject, error) bool) {
		for t, err := range c.List(ctx, f) {
			s := migrate.Subject{Tenant: t.name(), Server: t.Server, Ref: t.UID, Booked: &migrate.Booked{Version: t.Version, Fingerprint: t.Fingerprint}}
			if i, ok := c.cfg.Servers[t.Server].(migrate.Inspector); ok {
				s.Inspector = i
			}
			j := &job{b: &book{c: c}, t: t}
			s.Open = func(ctx context.Context) (*migrate.Exclusive, error) {
				return j.Open(ctx, migrate.Lock{ReadOnly: true})
			}
			if !yield(s, err) {
				return
			}
		}
	}
}

// Correct writes the version that v has found in a database into the catalog,
// where that says another one: after a migration that was made around the
// catalog, or a dump that was restored by hand. It returns the tenants that it
// has corrected; those that have changed since then, or are being changed, are
// not, and are in the error. The next MigrateTenants brings those forward that
// are behind.
func (c *Catalog) Correct(ctx context.Context, v *migrate.Verification) ([]Tenant, error) {
	var done []Tenant
	var errs []error
	for _, d := range v.Drifts {
		if d.Kind != migrate.DriftBook {
			continue
		}
		u := new(set).add("version", d.Version).raw("fingerprint = '', revision = revision + 1")
		t, err := c.store.change(ctx, u, d.Ref, "version = ? AND lease_until < "+c.store.d.nowMS+" AND "+inFleet, d.Booked)
		switch {
		case errors.Is(err, errLost):
			errs = append(errs, &tenancy.Error{Op: "correct", Tenant: d.Tenant, Err: ErrBusy,
				Detail: "it has changed since it was verified, or is being changed", Hint: "verify again"})
		case err != nil:
			return done, c.mainError("correct", err)
		default:
			c.lookups.news(newsOf(t)...)
			done = append(done, t)
		}
	}
	return done, errors.Join(errs...)
}
