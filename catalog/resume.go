package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gorm-tenancy/tenancy"
)

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
