package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// start takes the lease of t for a task, and runs it.
func (c *Catalog) start(ctx context.Context, t Tenant, task Task, p plan, dump io.Reader) (Tenant, error) {
	return c.startSetting(ctx, t, task, p, dump, new(set))
}

// startSetting is start, which also changes what u says as it begins.
func (c *Catalog) startSetting(ctx context.Context, t Tenant, task Task, p plan, dump io.Reader, u *set) (Tenant, error) {
	if t.bad != nil {
		return t, &tenancy.Error{Op: string(task), Tenant: t.ID, Cause: t.bad, Hint: "mend the row"}
	}
	if !p.Forget {
		server, err := c.server(t.Server)
		if err != nil {
			return t, &tenancy.Error{Op: string(task), Tenant: t.ID, Err: ErrUnknownServer, Cause: err,
				Hint: "configure it, or Remove the tenant with Forget"}
		}
		if tasks[task].fences && t.leaseOwner == "" {
			if err := c.gate(ctx, t, task, p, server); err != nil {
				return t, &tenancy.Error{Op: string(task), Tenant: t.ID, Err: reason(err), Cause: err,
					Hint: "nothing was changed; try again when that is mended"}
			}
		}
	}
	w, err := c.lease(ctx, t, task, p, u)
	if err != nil {
		return t, err
	}
	w.dump = dump
	return c.run(ctx, w)
}

// gate looks, before a tenant goes out of service, whether the work can begin
// at all: nobody else is at work on its database, and it can be administered. A
// tenant is suspended and removed also where its server is down, so that it is
// refused at once.
func (c *Catalog) gate(ctx context.Context, t Tenant, task Task, p plan, server Server) error {
	s, err := c.session(ctx, server, t.Database, false)
	if err == nil {
		err = s.Close()
	}
	if task != TaskRename && task != TaskMove && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrNoAdmin) {
		return nil
	}
	if err != nil || task != TaskMove || p.Back || p.Switched {
		return err
	}
	to, err := c.server(p.Server)
	if err != nil {
		return err
	}
	if s, err = c.session(ctx, to, p.Database, false); err != nil {
		return err
	}
	return s.Close()
}

// lease makes t the work of this process. errLost says that it has changed
// since it was read.
func (c *Catalog) lease(ctx context.Context, t Tenant, task Task, p plan, u *set) (*work, error) {
	op := tasks[task]
	to, ok := op.from[t.State]
	if !ok {
		return nil, stateError(string(task), t, ErrState, "")
	}
	if t.Task != "" && t.Task != task && !slices.Contains(op.over, t.Task) {
		return nil, &tenancy.Error{Op: string(task), Tenant: t.ID, Err: ErrUnfinished,
			Detail: fmt.Sprintf("its %s stopped at step %q: %s", t.Task, t.Step, cmp.Or(t.LastError, "the process died")),
			Hint:   "call Resume first"}
	}
	owner := newOwner()
	if op.fences {
		u.raw("generation = generation + 1")
	}
	leased, err := c.store.begin(ctx, t, to, task, p, u, owner, c.cfg.Lease)
	if errors.Is(err, errLost) {
		return nil, err
	}
	if err != nil {
		return nil, c.mainError(string(task), err)
	}
	if leased.place() != t.place() {
		c.lookups.news(t.ID)
	}
	return &work{c: c, t: leased, owner: owner, steal: t.leaseOwner != ""}, nil
}

// keepLease renews the lease until ctx ends, and ends the work when it is
// lost: when another has it, or when the main database has not been reached for
// as long as it lasts.
func (c *Catalog) keepLease(ctx context.Context, uid, owner string, cancel context.CancelCauseFunc) {
	// It ends the work before the lease ends.
	ticker := time.NewTicker(c.cfg.Lease / 4)
	defer ticker.Stop()
	last := monotonic()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		began := monotonic()
		renewing, done := context.WithTimeout(ctx, c.cfg.Lease/4)
		err := c.store.renew(renewing, uid, owner, c.cfg.Lease)
		done()
		switch {
		case err == nil:
			last = began
		case errors.Is(err, errLost) || monotonic()-last > c.cfg.Lease*5/8:
			cancel(fmt.Errorf("%w (%w)", errLost, err))
			return
		}
	}
}

// attempt is what an operation makes of a row: done, or again because the row
// changed or somebody is at work on it.
type attempt func(t Tenant, there bool) (done bool, err error)

// until reads the row of id and calls try until that is done. It waits while
// another process is at work on the tenant, for Config.Wait at most.
func (c *Catalog) until(ctx context.Context, op, id string, try attempt) error {
	const shortest, longest = 5 * time.Millisecond, 250 * time.Millisecond
	began := monotonic()
	for pause := shortest; ; pause = min(2*pause, longest) {
		t, err := c.store.byID(ctx, id)
		there := err == nil
		if err != nil && !errors.Is(err, errNoRow) {
			return c.mainError(op, err)
		}
		// A migration has no task. It keeps away what changes the tenant, when
		// that wants the lease, but not what finds nothing to do.
		if !t.leased || t.Task == "" {
			done, err := try(t, there)
			if done || err != nil && !errors.Is(err, errLost) {
				return err
			}
		}
		if monotonic()-began > c.cfg.Wait {
			return &tenancy.Error{Op: op, Tenant: id, Err: ErrBusy, Detail: fmt.Sprintf("waited %s", c.cfg.Wait),
				Hint: "try again later, or raise Config.Wait"}
		}
		select {
		case <-ctx.Done():
			return &tenancy.Error{Op: op, Tenant: id, Cause: context.Cause(ctx)}
		case <-time.After(pause):
		}
	}
}
