package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// owns reports whether the database of a session is this tenant's to end. A
// name that the catalog has made comes once. One that was adopted, or written
// into the row by hand, may be another's by now: that must say so itself.
func (w *work) owns(ctx context.Context, s Session, name string, adopted bool) (bool, error) {
	if !adopted && strings.HasPrefix(name, namePrefix) {
		return true, nil
	}
	owner, err := s.Owner(ctx)
	if err != nil {
		return false, err
	}
	if owner.UID != "" {
		return owner.Catalog == w.catalog && (owner.UID == w.t.UID || owner.UID == w.t.plan.Owner), nil
	}
	there, err := s.Exists(ctx)
	return !there, err // what an interrupted drop left
}

// endable reports whether there is a database that Remove may touch.
func (w *work) endable(ctx context.Context) (bool, error) {
	if w.forgets() {
		return false, nil
	}
	there, err := w.session.Exists(ctx)
	if err != nil || !there {
		return false, err
	}
	return w.owns(ctx, w.session, w.t.Database, w.t.Adopted)
}

// markRemoved raises the generation of what will be gone, so that no stale
// pool can use it any more while it is still there.
func (w *work) markRemoved(ctx context.Context) error {
	if !w.t.plan.served() {
		return nil
	}
	if err := w.settleRename(ctx); err != nil {
		return err
	}
	ok, err := w.endable(ctx)
	if err != nil || !ok {
		return err
	}
	return w.mark(ctx)
}

// settleRename gives the database the name that the row has, where a rename was
// not finished, so that it is fenced and backed up as any other.
func (w *work) settleRename(ctx context.Context) error {
	from := w.t.plan.Database
	if w.t.plan.NewID == "" || from == "" {
		return nil
	}
	w.endSession()
	if err := w.begin(ctx, from); err != nil {
		return err
	}
	there, err := w.session.Exists(ctx)
	if err != nil {
		return err
	}
	if there {
		return w.renameDatabase(ctx)
	}
	w.endSession()
	return w.begin(ctx, w.t.Database)
}

func (w *work) fenceRemoved(ctx context.Context) error {
	ok, err := w.endable(ctx)
	if err != nil || !ok {
		return err
	}
	err = w.fence(ctx)
	if errors.Is(err, ErrNotFenced) && !w.t.plan.Keep && (w.t.plan.Drain < 0 || !w.t.plan.served()) {
		return nil // the drop takes it away from whoever has it open
	}
	return err
}

func (w *work) backup(ctx context.Context) error {
	hook := w.c.cfg.Backup
	if hook == nil || w.t.plan.NoBackup || w.t.plan.Keep || !w.t.plan.served() || w.t.Backup != "" {
		return nil
	}
	ok, err := w.endable(ctx)
	if err != nil || !ok {
		return err
	}
	location, err := hook(ctx, w.t, func(to io.Writer) error { return w.session.Dump(ctx, to) })
	if err != nil {
		return fmt.Errorf("the backup: %w", err)
	}
	t, err := w.c.store.note(ctx, w.t, w.owner, new(set).add("backup", location))
	if err == nil {
		w.t = t
	}
	return err
}

// drop also drops the other database of a tenant whose move was not finished.
func (w *work) drop(ctx context.Context) error {
	if w.t.plan.Keep {
		return nil
	}
	if p := w.t.plan; p.Database != "" && p.NewID == "" {
		server, err := w.c.server(p.Server)
		if err != nil {
			return err
		}
		w.endSession()
		other, err := w.sessionOf(ctx, server, p.Database)
		if err != nil {
			return err
		}
		err = w.dropOn(ctx, other, p.Server, p.Database, p.OldAdopted)
		if err := errors.Join(err, other.Close()); err != nil {
			return err
		}
		if err := w.begin(ctx, w.t.Database); err != nil {
			return err
		}
	}
	return w.dropOn(ctx, w.session, w.t.Server, w.t.Database, w.t.Adopted)
}

func (w *work) dropOn(ctx context.Context, s Session, server, name string, adopted bool) error {
	ok, err := w.owns(ctx, s, name, adopted)
	if err != nil {
		return err
	}
	if !ok {
		w.c.cfg.Logger.Warn("tenancy: a removed tenant's database is another's by now, and is left alone", "tenant", w.t.name(), "server", server, "database", name)
		return nil
	}
	release, err := takePlace(ctx, w.c.drops[server])
	if err != nil {
		return err
	}
	defer release()
	return s.Drop(ctx)
}

func (w *work) bury(ctx context.Context) error {
	u := new(set)
	if w.t.plan.Keep {
		u.add("backup", keptPrefix+w.t.Database)
	}
	return w.finish(ctx, Deleted, u)
}

// keptPrefix begins Tenant.Backup of a removed tenant whose database was kept.
const keptPrefix = "kept:"
