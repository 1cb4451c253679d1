package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gorm-tenancy/tenancy"
)

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

// fenceMoved fences nothing of a move that is called off: it may be the fence
// that could not be had.
func (w *work) fenceMoved(ctx context.Context) error {
	if w.t.plan.Back {
		return nil
	}
	return w.fence(ctx)
}

// copyAway makes the copy that the tenant moves to, and keeps its session. A
// move that is called off asks nothing of where it was to go, which may be why.
func (w *work) copyAway(ctx context.Context) error {
	p := w.t.plan
	if p.Switched || p.Back || p.Database == "" {
		return nil
	}
	server, err := w.c.server(p.Server)
	if err != nil {
		return err
	}
	to, err := w.sessionOf(ctx, server, p.Database)
	if err != nil {
		return err
	}
	w.to = to
	release, err := takePlace(ctx, w.c.making[p.Server])
	if err != nil {
		return err
	}
	defer release()
	// What an earlier try left is of no use.
	if err := to.Drop(ctx); err != nil {
		return err
	}
	r, pw := io.Pipe()
	dumped := make(chan error, 1)
	go func() {
		err := w.session.Dump(ctx, pw)
		_ = pw.CloseWithError(err)
		dumped <- err
	}()
	err = to.Restore(ctx, r)
	_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // ends the dump, if it goes on
	if dumpErr := <-dumped; dumpErr != nil && err == nil {
		err = dumpErr
	}
	if err != nil {
		return err
	}
	m := w.meta()
	m.Replaces = w.t.UID
	return to.Mark(ctx, m)
}

// switchServer makes the copy the tenant's database. The old one is kept until
// the tenant is back in service.
func (w *work) switchServer(ctx context.Context) error {
	p := w.t.plan
	if p.Switched || p.Back || p.Database == "" {
		return nil
	}
	server, err := w.c.server(p.Server)
	if err != nil {
		return err
	}
	// Nobody else can have dropped it: its session goes on.
	owner, err := w.to.Owner(ctx)
	if err != nil {
		return err
	}
	if owner.UID != w.t.UID {
		return fmt.Errorf("%w: the copy %q says that it is %q's", ErrForeign, p.Database, owner.UID)
	}
	u := new(set).add("server", p.Server).add("dbname", p.Database).raw("adopted = ?", false).raw("revision = revision + 1")
	p.Server, p.Database, p.Switched, p.OldAdopted = w.t.Server, w.t.Database, true, w.t.Adopted
	t, err := w.c.store.note(ctx, w.t, w.owner, u.add("plan", p.String()))
	if err != nil {
		return err
	}
	w.t = t
	w.c.lookups.news(newsOf(t)...)
	w.endSession()
	w.server, w.session, w.to = server, w.to, nil
	return nil
}
