package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

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
		err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+catalogTable).Scan(&one)
		switch {
		case err == nil:
			return fmt.Errorf("%w: it holds a catalog: it is a main database", ErrForeign)
		case sqlerr.MissingTable(err):
			return nil
		}
		return err // it is not known
	}); err != nil {
		return err
	}
	if owner.UID == "" || owner.UID == w.t.UID {
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
	if w.t.plan.Force {
		return nil
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
