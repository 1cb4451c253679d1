package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorm-tenancy/tenancy"
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
	p.Server, p.Database, p.Switched, p.OldAdopted = old.Server, old.Database, old.Switched, old.OldAdopted
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
	// A few at once: one that takes long, or whose server hangs, must not keep
	// the others waiting.
	const workers = 4
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan Tenant)
	for range min(workers, len(rows)) {
		wg.Go(func() {
			for t := range next {
				done, err := c.resume(ctx, t)
				mu.Lock()
				switch {
				case errors.Is(err, errLost), errors.Is(err, ErrBusy):
					r.Busy = append(r.Busy, t)
				case err != nil:
					r.Failed = append(r.Failed, ResumeFailure{t, err})
				default:
					r.Finished = append(r.Finished, done)
				}
				mu.Unlock()
			}
		})
	}
	for _, t := range rows {
		if t.leased {
			mu.Lock()
			r.Busy = append(r.Busy, t)
			mu.Unlock()
			continue
		}
		next <- t
	}
	close(next)
	wg.Wait()
	return r, ctx.Err()
}

func (c *Catalog) resume(ctx context.Context, t Tenant) (Tenant, error) {
	if err := ctx.Err(); err != nil {
		return t, err
	}
	switch t.Task {
	case TaskRemove:
		return c.remove(ctx, t, t.plan)
	case TaskRestore:
		return t, &tenancy.Error{Op: "restore", Tenant: t.ID, Cause: errNoDump, Hint: tasks[TaskRestore].hint}
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
