package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// work is one task on one tenant, by whoever has its lease.
type work struct {
	c       *Catalog
	t       Tenant // as it is in the catalog now
	owner   string // of the lease
	steal   bool   // the lease was taken from somebody who is silent
	catalog string // its id
	server  Server
	session Session
	to      Session   // of the copy that a move has made
	unclean bool      // a session did not end in order
	left    string    // the uid of the row of a database that is to be dropped
	dump    io.Reader // what a restore reads
	fresh   bool      // the database was copied from the current template now
	version *int64    // of the schema, where it was looked at
}

// step is a part of a task that is done again from its beginning when it was
// interrupted: done twice is the same as done once.
type step struct {
	name string
	do   func(*work, context.Context) error
}

// newOwner names this piece of work in the lease.
func newOwner() string { return newUID() }

// run does the steps of the task that w has leased. When it fails the row says
// where and why, and anybody may go on.
func (c *Catalog) run(parent context.Context, w *work) (Tenant, error) {
	task := w.t.Task
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	kept := make(chan struct{})
	go func(uid string) { // the last step writes w.t
		defer close(kept)
		c.keepLease(ctx, uid, w.owner, cancel)
	}(w.t.UID)
	at, err := c.steps(ctx, w, task)
	if err != nil && ctx.Err() != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errLost) {
			err = cause
		}
	}
	cancel(nil)
	<-kept
	w.endSession()
	if w.to != nil {
		w.unclean = w.to.Close() != nil || w.unclean
	}
	if err == nil {
		c.removeLeft(parent, w)
		return w.t, nil
	}
	message := err.Error()
	if !errors.Is(err, errLost) {
		// Not under ctx, which may be why it failed. If this fails too, the
		// lease runs out by itself.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if e := c.store.fail(ctx, w.t.UID, w.owner, at, message, w.unclean); e != nil {
			c.cfg.Logger.Warn("tenancy: a failure could not be noted in the catalog", "tenant", w.t.name(), "failure", err, "error", e)
		}
	}
	return w.t, &tenancy.Error{Op: string(task), Tenant: w.t.ID, Err: reason(err), Cause: err,
		Detail: fmt.Sprintf("step %q failed on server %s; it is %s", at, w.t.Server, w.t.State),
		Hint:   tasks[task].hint}
}

// reason is the error of this module in err, if there is one.
func reason(err error) error {
	for _, known := range []error{ErrForeign, ErrNotFenced, ErrExists, ErrUnknownServer, ErrNoTemplate, ErrBusy} {
		if errors.Is(err, known) {
			return known
		}
	}
	if errors.Is(err, errLost) {
		return ErrBusy
	}
	return nil
}

// steps does them one after the other, and returns the one that failed.
func (c *Catalog) steps(ctx context.Context, w *work, task Task) (at string, err error) {
	defer func() {
		if r := recover(); r != nil { // of a hook: sessions and the lease must not stay behind
			err = fmt.Errorf("a hook panicked: %v\n%s", r, debug.Stack())
		}
	}()
	if w.t.plan.Forget {
		return "bury", w.finish(ctx, Deleted, new(set))
	}
	if w.server, err = c.server(w.t.Server); err != nil {
		return "begin", err
	}
	if w.catalog, err = c.catalogID(ctx); err != nil {
		return "begin", err
	}
	c.cfg.at(task, "begin", true)
	if task == TaskMove {
		// Two that cross would wait for each other's sessions for ever.
		release, err := takePlace(ctx, c.moving)
		if err != nil {
			return "begin", err
		}
		defer release()
	}
	if err := w.begin(ctx, w.t.Database); err != nil {
		return "begin", c.placed(w, err)
	}
	all := tasks[task].steps
	for i, s := range all {
		if i == len(all)-1 {
			// The last one only writes the row, which the lease guards. So
			// nothing of the session is left when the row says that all is
			// done.
			w.endSession()
		}
		c.cfg.at(task, s.name, false)
		// Who waited for the session may have lost the lease meanwhile, and
		// nothing on the server would stop it.
		at = s.name
		if err := c.store.renew(ctx, w.t.UID, w.owner, c.cfg.Lease); err != nil {
			return s.name, err
		}
		if err := s.do(w, ctx); err != nil {
			if s.name != "migrate" && s.name != "seed" { // those may ask anybody
				err = c.placed(w, err)
			}
			return s.name, err
		}
		c.cfg.at(task, s.name, true)
	}
	return "", nil
}

// begin begins the session on a database of w's server.
func (w *work) begin(ctx context.Context, database string) (err error) {
	w.session, err = w.sessionOf(ctx, w.server, database)
	return err
}

// sessionOf begins a session, if w has the lease, and still has it then: what
// was paused for so long that another has taken its place must not end that
// one's session, nor use its own.
func (w *work) sessionOf(ctx context.Context, server Server, database string) (Session, error) {
	if err := w.c.store.renew(ctx, w.t.UID, w.owner, w.c.cfg.Lease); err != nil {
		return nil, err
	}
	s, err := w.c.session(ctx, server, database, w.steal)
	if err != nil {
		return nil, err
	}
	if err := w.c.store.renew(ctx, w.t.UID, w.owner, w.c.cfg.Lease); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// session begins a session, and waits for it no longer than Config.Wait.
func (c *Catalog) session(ctx context.Context, server Server, database string, steal bool) (Session, error) {
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Wait)
	defer cancel()
	s, err := server.Session(bounded, database, steal)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: waited %s for another session on the database, a dump for instance: %w", ErrBusy, c.cfg.Wait, err)
	}
	return s, err
}

func (w *work) endSession() {
	if w.session == nil {
		return
	}
	if err := w.session.Close(); err != nil {
		w.unclean = true
		w.c.cfg.Logger.Warn("tenancy: the end of administrative work", "database", w.t.Database, "error", err)
	}
	w.session = nil
}

// finish ends w's task in the state to.
func (w *work) finish(ctx context.Context, to State, u *set) error {
	return w.finishLeaving(ctx, to, u, nil)
}

// finishLeaving is finish, with a row for a database that is to be dropped.
func (w *work) finishLeaving(ctx context.Context, to State, u *set, left *Tenant) error {
	old := w.t
	t, err := w.c.store.finish(ctx, w.t, to, w.owner, u, left)
	if err != nil {
		return err
	}
	w.t = t
	w.c.lookups.news(newsOf(old, t)...)
	return nil
}

func newsOf(rows ...Tenant) (ids []string) {
	for _, t := range rows {
		if t.ID != "" {
			ids = append(ids, t.ID)
		}
	}
	return ids
}
