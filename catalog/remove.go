package catalog

import (
	"context"
	"time"
)

// RemoveOptions says how a tenant is removed.
type RemoveOptions struct {
	// Drain is how long work in flight may go on. Defaults to Config.Drain;
	// negative means not at all: then, on SQLite, the file is also taken away
	// from processes that still have it open (otherwise ErrNotFenced), and
	// what they write is lost.
	Drain time.Duration
	// KeepDatabase leaves the database where it is, fenced; only the tenant
	// goes. Adopt makes a tenant of it again.
	KeepDatabase bool
	// NoBackup leaves Config.Backup out.
	NoBackup bool
	// Forget ends the tenant without its server, which is gone for good or no
	// longer in Config.Servers. Nothing is fenced and nothing dropped: if the
	// server comes back, Audit reports the database.
	Forget bool
}

// Remove ends a tenant: it is refused in all processes, fenced, its database
// backed up by Config.Backup and dropped. What stays is a tombstone. It also
// cleans up after a Create, Restore or Adopt that was not finished; the
// database of an Adopt that was not finished stays.
//
// Once begun it can't be taken back. When it failed it can be called again.
// A tenant that is not there is tenancy.ErrTenantNotFound.
func (c *Catalog) Remove(ctx context.Context, id string, opts RemoveOptions) (Tenant, error) {
	var removed Tenant
	err := c.until(ctx, "remove", id, func(t Tenant, there bool) (bool, error) {
		if !there {
			return false, notFound("remove", id)
		}
		var err error
		removed, err = c.remove(ctx, t, plan{Keep: opts.KeepDatabase, NoBackup: opts.NoBackup, Drain: opts.Drain, Forget: opts.Forget})
		return err == nil, err
	})
	return removed, err
}

func (c *Catalog) remove(ctx context.Context, t Tenant, p plan) (Tenant, error) {
	old := t.plan
	p.Was = t.State
	if t.State == Deleting {
		p.Was, p.Owner = old.Was, old.Owner
		p.Keep = p.Keep || old.Keep
		p.NoBackup = p.NoBackup || old.NoBackup
	}
	if t.State == Provisioning && t.Task == TaskAdopt {
		p.Keep = true
	}
	p.NewID, p.Server, p.Database, p.Switched, p.OldAdopted = old.NewID, old.Server, old.Database, old.Switched, old.OldAdopted
	return c.start(ctx, t, TaskRemove, p, nil)
}

// removeLeft drops the database that w has left a row for.
func (c *Catalog) removeLeft(ctx context.Context, w *work) {
	if w.left == "" {
		return
	}
	t, err := c.store.byUID(ctx, w.left)
	if err == nil {
		_, err = c.remove(ctx, t, plan{})
	}
	if err != nil {
		c.cfg.Logger.Warn("tenancy: the old database of a tenant that moved is dropped by the next Resume", "tenant", w.t.name(), "error", err)
	}
}

// served reports whether the tenant had a life before its removal.
func (p plan) served() bool { return p.Was == Active || p.Was == Suspended || p.Was == Moving }

// forgets reports whether only the row goes: of a database that was never
// adopted to the end.
func (w *work) forgets() bool { return w.t.plan.Keep && !w.t.plan.served() }
