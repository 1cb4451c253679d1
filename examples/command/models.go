package main

import (
	"context"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/cmd/tenancy/cli"
)

// Plan is in the main database.
type Plan struct {
	Name  string `gorm:"primaryKey"`
	Price int
}

// Order is in each tenant's.
type Order struct {
	ID    uint
	Item  string
	Price int
	Note  string
}

// seed is what a new tenant starts with. It may run again for the same tenant,
// so it repeats nothing.
func seed(ctx context.Context, db *gorm.DB, t catalog.Tenant) error {
	return db.WithContext(ctx).FirstOrCreate(&Order{}, Order{Item: "a welcome to " + t.ID}).Error
}

// emptyMain drops what the shop's migrations have made in the main database, for
// the command reset.
func emptyMain(ctx context.Context, app *cli.App) error {
	pool, err := app.DB.DB()
	if err != nil {
		return err
	}
	for _, table := range []string{"plans", "goose_db_version"} {
		if _, err := pool.ExecContext(ctx, "DROP TABLE IF EXISTS "+table); err != nil {
			return err
		}
	}
	return nil
}
