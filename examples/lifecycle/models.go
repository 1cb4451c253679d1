package main

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// Note is a tenant's model.
type Note struct {
	ID   uint
	Text string
}

// schema makes the tables of a tenant. It runs once for the template, and
// not for each tenant that is copied from it. Raise the version when it changes.
func schema(dialect func(*sql.DB) gorm.Dialector) migrate.Migrator {
	return migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
		g, err := gorm.Open(dialect(db), &gorm.Config{Logger: logger.Discard})
		if err != nil {
			return err
		}
		return g.WithContext(ctx).AutoMigrate(&Note{})
	})
}

// seed is what each new tenant starts with.
type seed struct{ down atomic.Bool }

// fill may run again for the same tenant, so it repeats nothing.
func (s *seed) fill(_ context.Context, db *gorm.DB, t catalog.Tenant) error {
	if s.down.Load() {
		return errors.New("the service with the welcome texts is down")
	}
	return db.FirstOrCreate(&Note{}, Note{Text: "welcome, " + t.ID}).Error
}
