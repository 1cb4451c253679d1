package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

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

// Rename gives a tenant another id. Its database stays. It is out of service
// for the moment that the fence takes: only so can no process go on to serve it
// under the old id, which may soon be another tenant's. A suspended tenant
// stays suspended. A Rename that failed can be called off by a rename to the id
// that the tenant has.
func (c *Catalog) Rename(ctx context.Context, id, newID string) error {
	if err := c.checkNew("rename", newID, CreateOptions{}); err != nil {
		return err
	}
	err := c.until(ctx, "rename", id, func(t Tenant, there bool) (bool, error) {
		switch {
		case !there:
			return c.renamed(ctx, id, newID)
		case id == newID && t.Task != TaskRename:
			return true, nil
		}
		p := plan{Was: t.State, OldID: id, NewID: newID}
		switch {
		case t.State == Moving && t.Task == TaskRename:
			p.Was = t.plan.Was
		case t.State == Provisioning, t.State == Deleting:
			return false, notFound("rename", id)
		}
		if other, err := c.store.byID(ctx, newID); err == nil && id != newID {
			return false, &tenancy.Error{Op: "rename", Tenant: id, Err: ErrExists, Detail: other.String()}
		}
		_, err := c.start(ctx, t, TaskRename, p, nil)
		return err == nil, err
	})
	if errors.Is(err, ErrExists) && id != newID {
		// The new id was taken meanwhile: the tenant comes back under its own.
		return errors.Join(err, c.Rename(ctx, id, id))
	}
	return err
}

// renamed goes on with a rename that had given the row its new id already.
func (c *Catalog) renamed(ctx context.Context, id, newID string) (bool, error) {
	t, err := c.store.byID(ctx, newID)
	switch {
	case err != nil && !errors.Is(err, errNoRow):
		return false, c.mainError("rename", err)
	case err != nil || t.Task != TaskRename || t.plan.OldID != id || t.plan.NewID != newID:
		return false, notFound("rename", id)
	case t.leased:
		return false, nil
	}
	_, err = c.start(ctx, t, TaskRename, t.plan, nil)
	return err == nil, err
}

// Move takes a tenant to another server, by a dump that is restored there. The
// tenant is out of service meanwhile; a suspended one stays suspended. The old
// database is dropped when the tenant is back in service. A Move that failed
// can be called again, or called off by moving to the server that the tenant
// is on. A process makes one move at a time.
func (c *Catalog) Move(ctx context.Context, id, server string) error {
	if _, err := c.server(server); err != nil {
		return &tenancy.Error{Op: "move", Tenant: id, Err: ErrUnknownServer, Cause: err}
	}
	return c.until(ctx, "move", id, func(t Tenant, there bool) (bool, error) {
		var p plan
		switch {
		case !there || t.State == Provisioning || t.State == Deleting:
			return false, notFound("move", id)
		case t.Task == TaskMove:
			p = t.plan
			p.Back = t.Server == server && !p.Switched
			if !p.Back && server != t.Server && server != p.Server {
				return false, stateError("move", t, ErrUnfinished, "it moves from "+t.Server+" to "+p.Server+"; finish that, or call it off by a Move to "+t.Server)
			}
			if p.Switched && server == p.Server {
				return false, stateError("move", t, ErrUnfinished, "it is on "+t.Server+" already; call Resume first")
			}
		case t.Server == server:
			return true, nil
		default:
			p = plan{Was: t.State, Server: server, Database: newDatabaseName(id)}
		}
		_, err := c.start(ctx, t, TaskMove, p, nil)
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
