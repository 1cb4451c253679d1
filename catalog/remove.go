package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// RemoveOptions says how a tenant is removed.
type RemoveOptions struct {
	// Drain is how long work in flight may go on. Defaults to Config.Drain;
	// negative means not at all.
	Drain time.Duration
	// KeepDatabase leaves the database where it is, fenced; only the tenant
	// goes. Adopt makes a tenant of it again.
	KeepDatabase bool
	// NoBackup leaves Config.Backup out.
	NoBackup bool
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
		removed, err = c.remove(ctx, t, plan{Keep: opts.KeepDatabase, NoBackup: opts.NoBackup, Drain: opts.Drain})
		return err == nil, err
	})
	return removed, err
}

func (c *Catalog) remove(ctx context.Context, t Tenant, p plan) (Tenant, error) {
	p.Was = t.State
	if t.State == Deleting { // what was promised first is kept
		p.Was, p.Keep = t.plan.Was, t.plan.Keep
	}
	if t.State == Provisioning && t.Task == TaskAdopt {
		p.Keep = true
	}
	if t.State == Moving && t.plan.Database != "" && t.plan.Database != t.Database {
		if err := c.store.leftover(ctx, t.plan.Server, t.plan.Database); err != nil && !isUnique(err) {
			return t, c.mainError("remove", err)
		}
		defer func() {
			if _, err := c.removeLeft(ctx, t.plan.Server, t.plan.Database); err != nil {
				c.cfg.Logger.Warn("tenancy: the copy of a tenant that was to move is dropped by the next Resume", "tenant", t.name(), "error", err)
			}
		}()
	}
	return c.start(ctx, t, TaskRemove, p, nil)
}

// removeLeft drops a database that a move left.
func (c *Catalog) removeLeft(ctx context.Context, server, database string) (Tenant, error) {
	rows, err := c.store.many(ctx, "", "server = ? AND dbname = ? AND state = 'deleting' AND id IS NULL", 1, server, database)
	if err != nil || len(rows) == 0 {
		return Tenant{}, err
	}
	return c.remove(ctx, rows[0], plan{})
}

// Resumed is what [Catalog.Resume] did.
type Resumed struct {
	// Finished are the tenants whose work is done now, as they are now.
	Finished []Tenant
	// Failed are those whose work can't be finished, each with its error: a
	// Restore needs its dump again.
	Failed []ResumeFailure
	// Busy are those that another process is at work on.
	Busy []Tenant
}

// ResumeFailure is one tenant's.
type ResumeFailure struct {
	Tenant Tenant
	Err    error
}

// Resume finishes whatever was begun and not finished, by a process that died
// or an operation that failed. What it can't finish it reports; the error is
// nil then, and is for the catalog itself. It may run anywhere at any time.
func (c *Catalog) Resume(ctx context.Context) (Resumed, error) {
	var r Resumed
	var rows []Tenant
	if err := c.store.each(ctx, "task <> ''", nil, func(t Tenant) error {
		rows = append(rows, t)
		return nil
	}); err != nil {
		return r, c.mainError("resume", err)
	}
	for _, t := range rows {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if t.leased {
			r.Busy = append(r.Busy, t)
			continue
		}
		done, err := c.resume(ctx, t)
		switch {
		case errors.Is(err, errLost):
			r.Busy = append(r.Busy, t)
		case err != nil:
			r.Failed = append(r.Failed, ResumeFailure{t, err})
		default:
			r.Finished = append(r.Finished, done)
		}
	}
	return r, nil
}

func (c *Catalog) resume(ctx context.Context, t Tenant) (Tenant, error) {
	switch t.Task {
	case TaskRemove:
		return c.remove(ctx, t, t.plan)
	case TaskMove:
		old := t
		done, err := c.start(ctx, t, TaskMove, t.plan, nil)
		if err == nil && done.Database != old.Database {
			if _, e := c.removeLeft(ctx, old.Server, old.Database); e != nil {
				c.cfg.Logger.Warn("tenancy: the old database of a tenant that moved is dropped by the next Resume", "tenant", t.name(), "error", e)
			}
		}
		return done, err
	}
	if t.Task == TaskRename {
		done, err := c.start(ctx, t, TaskRename, t.plan, nil)
		if errors.Is(err, ErrExists) { // the new id was taken meanwhile
			err = errors.Join(err, c.Rename(ctx, t.ID, t.ID))
		}
		return done, err
	}
	if _, ok := tasks[t.Task]; !ok {
		return t, fmt.Errorf("catalog: row %s has the unknown task %q", t.UID, t.Task)
	}
	return c.start(ctx, t, t.Task, t.plan, nil)
}

// Purge deletes the tombstones that are older than Config.Tombstones, and
// returns how many. [Catalog.Run] calls it.
func (c *Catalog) Purge(ctx context.Context) (int, error) {
	before := "clock_timestamp() - ? * interval '1 millisecond'"
	if c.store.d.name == "sqlite" {
		before = "strftime('%Y-%m-%d %H:%M:%f', unixepoch('subsec') - ? / 1000.0, 'unixepoch')"
	}
	n, err := c.store.exec(ctx, "DELETE FROM "+tenantsTable+" WHERE state = 'deleted' AND deleted_at < "+before,
		float64(c.cfg.Tombstones.Milliseconds()))
	if err != nil {
		return 0, c.mainError("purge", err)
	}
	return int(n), nil
}
