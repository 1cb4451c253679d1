package catalog

import (
	"context"
	"errors"
	"time"
)

func (w *work) fence(ctx context.Context) error {
	drain := w.t.plan.Drain
	if drain == 0 {
		drain = w.c.cfg.Drain
	}
	return w.session.Fence(ctx, max(drain, 0))
}

func (w *work) suspended(ctx context.Context) error { return w.finish(ctx, Suspended, new(set)) }

// SuspendOptions says how a tenant is suspended.
type SuspendOptions struct {
	// Reason is kept in the row, and is in the error that the tenant's
	// statements get.
	Reason string
	// Drain is how long work in flight may go on. Defaults to Config.Drain;
	// negative means not at all.
	Drain time.Duration
}

// Suspend takes an active tenant out of service, in all processes: its
// statements are refused with tenancy.ErrTenantSuspended. Processes that hear
// of it retire its pools and let what is in flight finish; who did not hear
// meets the fence in the server: connections are refused, and those that are
// there after Drain are ended. When Suspend returns nil, that was verified: no
// session of the application is in the database. ErrNotFenced says that it
// could not be made sure (on SQLite, where another process's connection can't
// be ended); the tenant is suspended for all who hear, and Suspend can be
// called again.
func (c *Catalog) Suspend(ctx context.Context, id string, opts SuspendOptions) error {
	return c.until(ctx, "suspend", id, func(t Tenant, there bool) (bool, error) {
		switch {
		case !there, t.State == Provisioning, t.State == Deleting:
			return false, notFound("suspend", id)
		case t.State == Moving:
			return false, stateError("suspend", t, ErrUnfinished, "call Resume first")
		case t.State == Suspended && t.Task == "":
			if t.Reason == opts.Reason {
				return true, nil
			}
			_, err := c.store.change(ctx, new(set).add("reason", opts.Reason).raw("revision = revision + 1"), t.UID, "revision = ?", t.revision)
			c.lookups.news(id)
			return err == nil, c.unlessLost("suspend", err)
		}
		_, err := c.startSetting(ctx, t, TaskSuspend, plan{Drain: opts.Drain}, nil, new(set).add("reason", opts.Reason))
		return err == nil, err
	})
}

// Unsuspend puts a suspended tenant back into service. It also takes back a
// Suspend that failed.
func (c *Catalog) Unsuspend(ctx context.Context, id string) error {
	return c.until(ctx, "unsuspend", id, func(t Tenant, there bool) (bool, error) {
		switch {
		case !there, t.State == Provisioning, t.State == Deleting:
			return false, notFound("unsuspend", id)
		case t.State == Active && t.Task == "":
			return true, nil
		case t.State != Suspended:
			return false, stateError("unsuspend", t, ErrUnfinished, "call Resume first")
		}
		_, err := c.start(ctx, t, TaskUnsuspend, plan{}, nil)
		return err == nil, err
	})
}

// unlessLost makes an error of the main database one, but for errLost.
func (c *Catalog) unlessLost(op string, err error) error {
	if err == nil || errors.Is(err, errLost) {
		return err
	}
	return c.mainError(op, err)
}
