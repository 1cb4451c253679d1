package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

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
	return withDB(ctx, w.session, fn)
}

// withDB closes the database also when fn, somebody's hook, panics.
func withDB(ctx context.Context, s Session, fn func(*sql.DB) error) (err error) {
	db, err := s.DB(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return fn(db)
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
