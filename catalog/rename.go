package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// Rename gives a tenant another id, and its database another name, unless it
// was adopted. It is out of service for the moment that the fence takes: only
// so can no process go on to serve it under the old id, which may soon be
// another tenant's. A suspended tenant stays suspended. A Rename that failed
// before the tenant had its new id can be called off by a rename to the id that
// it has.
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
		case t.Task == TaskRename && t.plan.Database != "":
			// It has its new id, and its database gets its new name: there is
			// no way but on.
			if newID != t.plan.NewID {
				return false, stateError("rename", t, ErrUnfinished, "it was renamed from "+t.plan.OldID+"; call Resume first")
			}
			_, err := c.start(ctx, t, TaskRename, t.plan, nil)
			return err == nil, err
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

// markRenamed and fenceRenamed find no database where the row has its new name
// already, and the database not yet: then both were done.
func (w *work) markRenamed(ctx context.Context) error {
	there, err := w.session.Exists(ctx)
	if err != nil || !there {
		return err
	}
	return w.mark(ctx)
}

func (w *work) fenceRenamed(ctx context.Context) error {
	if w.t.plan.NewID == w.t.ID && w.t.plan.Database == "" && w.t.plan.OldID == w.t.ID {
		return nil // called off: it may be the fence that could not be had
	}
	there, err := w.session.Exists(ctx)
	if err != nil || !there {
		return err
	}
	return w.fence(ctx)
}

// rename gives the row its new id, and the name that its database is about to
// get.
func (w *work) rename(ctx context.Context) error {
	if w.t.ID == w.t.plan.NewID {
		return nil // done, or called off
	}
	old := w.t
	u := new(set).add("id", w.t.plan.NewID)
	if !w.t.Adopted {
		p := w.t.plan
		p.Server, p.Database = w.t.Server, w.t.Database // the old name
		u.add("dbname", newDatabaseName(w.t.plan.NewID)).add("plan", p.String())
	}
	t, err := w.c.store.note(ctx, w.t, w.owner, u)
	if sqlerr.Unique(err) {
		return fmt.Errorf("%w: %s", ErrExists, w.t.plan.NewID)
	}
	if err != nil {
		return err
	}
	w.t = t
	w.c.lookups.news(newsOf(old, t)...)
	return nil
}

// renameDatabase makes that whoever goes on under the old id, through a
// connection pooler that keeps connections open for it, finds no database any
// more: the pooler's own connections ask for it by its name. An adopted
// database keeps its name, which others may know.
func (w *work) renameDatabase(ctx context.Context) error {
	from := w.t.plan.Database
	if from == "" || from == w.t.Database {
		return nil
	}
	w.endSession()
	if err := w.begin(ctx, from); err != nil {
		return err
	}
	if err := w.session.Rename(ctx, w.t.Database); err != nil {
		return err
	}
	w.endSession()
	if err := w.begin(ctx, w.t.Database); err != nil {
		return err
	}
	return w.mark(ctx) // the generation is another one if this was interrupted
}

// openAgain lets the application in, if it was.
func (w *work) openAgain(ctx context.Context) error {
	if w.t.plan.Was == Suspended {
		return nil
	}
	return w.session.Open(ctx)
}

func (w *work) goBack(ctx context.Context) error {
	to := w.t.plan.Was
	if to != Suspended {
		to = Active
	}
	p := w.t.plan
	if !p.Switched && !p.Back {
		return w.finish(ctx, to, new(set))
	}
	// The place that it came from or, called off, where it was to go.
	left := &Tenant{UID: newUID(), Server: p.Server, Database: p.Database, Adopted: p.OldAdopted, plan: plan{Owner: w.t.UID}}
	if err := w.finishLeaving(ctx, to, new(set), left); err != nil {
		return err
	}
	w.left = left.UID
	return nil
}
