package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

// templateUID is what the mark of a template says, and so that of a copy until
// it has its own.
const templateUID = "template"

// place takes one of the places of a server, and returns what gives it back.
func takePlace(ctx context.Context, places chan struct{}) (func(), error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (w *work) createDatabase(ctx context.Context) error {
	there, err := w.session.Exists(ctx)
	if err != nil || there {
		return err // what was begun is gone on with; migrate brings it forward
	}
	template := w.c.template(w.catalog, w.t.Server)
	err = w.create(ctx, template)
	if template != "" && errors.Is(err, ErrNoTemplate) {
		// Nobody waits for a session while he has one, or a place: there are
		// few of both.
		w.endSession()
		if err := w.c.buildTemplate(ctx, w.server, w.catalog, template); err != nil {
			return fmt.Errorf("making the template: %w", err)
		}
		if err := w.begin(ctx, w.t.Database); err != nil {
			return err
		}
		err = w.create(ctx, template)
	}
	w.fresh = err == nil && template != ""
	return err
}

func (w *work) create(ctx context.Context, template string) error {
	release, err := takePlace(ctx, w.c.making[w.t.Server])
	if err != nil {
		return err
	}
	defer release()
	return w.session.Create(ctx, template)
}

func (w *work) meta() Meta {
	return Meta{Catalog: w.catalog, Identity: tenancy.Identity{UID: w.t.UID, Generation: w.t.Generation}, Replaces: templateUID}
}

func (w *work) mark(ctx context.Context) error { return w.session.Mark(ctx, w.meta()) }

// markAny takes over what a dump was made of.
func (w *work) markAny(ctx context.Context) error {
	m := w.meta()
	m.Replaces = "*"
	return w.session.Mark(ctx, m)
}

func (w *work) migrate(ctx context.Context) error {
	m := w.c.cfg.Migrator
	if m == nil {
		return nil
	}
	target, _ := m.Target()
	if w.fresh {
		w.version = &target
		return nil
	}
	return w.withDB(ctx, func(db *sql.DB) error {
		if _, err := m.Up(ctx, db, target); err != nil {
			return err
		}
		w.version = &target
		return nil
	})
}

// withDB calls fn with the database, as the administrator.
func (w *work) withDB(ctx context.Context, fn func(*sql.DB) error) error {
	db, err := w.session.DB(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(db), db.Close())
}

func (w *work) seed(ctx context.Context) error {
	if w.c.cfg.Seed == nil {
		return nil
	}
	return w.withDB(ctx, func(db *sql.DB) error {
		g, err := gorm.Open(w.server.Dialector(db), &gorm.Config{
			NamingStrategy: w.c.main.NamingStrategy,
			Logger:         w.c.main.Logger,
			NowFunc:        w.c.main.NowFunc,
			TranslateError: w.c.main.TranslateError,
		})
		if err != nil {
			return err
		}
		return w.c.cfg.Seed(ctx, g.WithContext(ctx), w.t)
	})
}

func (w *work) open(ctx context.Context) error { return w.session.Open(ctx) }

// schema adds what is known of the schema to a change.
func (w *work) schema(u *set) *set {
	if w.version != nil {
		fingerprint := ""
		if target, f := w.c.cfg.Migrator.Target(); target == *w.version {
			fingerprint = f
		}
		u.add("version", *w.version).add("fingerprint", fingerprint)
	}
	return u
}

func (w *work) activate(ctx context.Context) error {
	return w.finish(ctx, Active, w.schema(new(set)).add("reason", ""))
}

func (w *work) shelve(ctx context.Context) error {
	return w.finish(ctx, Ready, w.schema(new(set)))
}

// checkAdopted makes sure that the database is there, and nobody's.
func (w *work) checkAdopted(ctx context.Context) error {
	there, err := w.session.Exists(ctx)
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("there is no database %q to adopt", w.t.Database)
	}
	owner, err := w.session.Owner(ctx)
	if err != nil {
		return err
	}
	if owner.UID == templateUID {
		return fmt.Errorf("%w: it is a template", ErrForeign)
	}
	if err := w.withDB(ctx, func(db *sql.DB) error {
		var one int
		if db.QueryRowContext(ctx, "SELECT one FROM "+catalogTable).Scan(&one) == nil {
			return fmt.Errorf("%w: it holds a catalog: it is a main database", ErrForeign)
		}
		return nil
	}); err != nil {
		return err
	}
	if owner.UID == "" || owner.UID == w.t.UID || w.t.plan.Force {
		return nil
	}
	// What a tombstone says may be adopted again, and a copy of it.
	if owner.Catalog == w.catalog {
		old, err := w.c.store.byUID(ctx, owner.UID)
		if errors.Is(err, errNoRow) || err == nil && old.State == Deleted {
			return nil
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: it says that it is tenant %s's", ErrForeign, old.name())
	}
	return fmt.Errorf("%w: it says that it is catalog %s's; set Force if that one is gone", ErrForeign, owner.Catalog)
}

func (w *work) migrateAdopted(ctx context.Context) error {
	m := w.c.cfg.Migrator
	if m == nil {
		return nil
	}
	if w.t.plan.Migrate {
		return w.migrate(ctx)
	}
	return w.withDB(ctx, func(db *sql.DB) error {
		version, err := m.Current(ctx, db)
		w.version = &version
		return err
	})
}

var errNoDump = errors.New("the dump is needed once more")

func (w *work) restore(ctx context.Context) error {
	if w.dump == nil {
		return errNoDump
	}
	release, err := takePlace(ctx, w.c.making[w.t.Server])
	if err != nil {
		return err
	}
	defer release()
	// What an earlier try left is of no use, and nobody was served from it.
	if err := w.session.Drop(ctx); err != nil {
		return err
	}
	return w.session.Restore(ctx, w.dump)
}

func (w *work) fence(ctx context.Context) error {
	drain := w.t.plan.Drain
	if drain == 0 {
		drain = w.c.cfg.Drain
	}
	return w.session.Fence(ctx, max(drain, 0))
}

func (w *work) suspended(ctx context.Context) error { return w.finish(ctx, Suspended, new(set)) }

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
	if isUnique(err) {
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
	if !w.t.plan.Switched {
		return w.finish(ctx, to, new(set))
	}
	p := w.t.plan
	left := &Tenant{UID: newUID(), Server: p.Server, Database: p.Database, Adopted: p.OldAdopted, plan: plan{Owner: w.t.UID}}
	if err := w.finishLeaving(ctx, to, new(set), left); err != nil {
		return err
	}
	w.left = left.UID
	return nil
}

// copyAway makes the copy that the tenant moves to, and keeps its session; of a
// move that is called off it drops the copy.
func (w *work) copyAway(ctx context.Context) error {
	p := w.t.plan
	if p.Switched || p.Database == "" {
		return nil
	}
	server, err := w.c.server(p.Server)
	if err != nil {
		return err
	}
	to, err := w.c.session(ctx, server, p.Database, w.steal)
	if err != nil {
		return err
	}
	if p.Back {
		return errors.Join(to.Drop(ctx), to.Close())
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
	ok, err := w.endable(ctx)
	if err != nil || !ok {
		return err
	}
	return w.mark(ctx)
}

// served reports whether the tenant had a life before its removal.
func (p plan) served() bool { return p.Was == Active || p.Was == Suspended || p.Was == Moving }

// forgets reports whether only the row goes: of a database that was never
// adopted to the end.
func (w *work) forgets() bool { return w.t.plan.Keep && !w.t.plan.served() }

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

// drop also drops the other database of a tenant whose move or rename was not
// finished.
func (w *work) drop(ctx context.Context) error {
	if w.t.plan.Keep {
		return nil
	}
	if p := w.t.plan; p.Database != "" && (p.Database != w.t.Database || p.Server != w.t.Server) {
		server, err := w.c.server(p.Server)
		if err != nil {
			return err
		}
		w.endSession()
		other, err := w.c.session(ctx, server, p.Database, w.steal)
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
