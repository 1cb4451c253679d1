package main

import (
	"database/sql"
	"embed"
	"io/fs"

	"github.com/glebarez/sqlite"
	"github.com/pressly/goose/v3"
	"gorm.io/gorm"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/migrate"
)

//go:embed migrations
var files embed.FS

// migrators are that of the main database, and that of the tenants, one of whose
// migrations is Go.
func migrators() (main, tenants migrate.Migrator, err error) {
	if main, err = migrator("migrations/main"); err != nil {
		return nil, nil, err
	}
	tenants, err = migrator("migrations/tenants", tenancygoose.GORM(2, "notes", dialect, addNotes))
	return main, tenants, err
}

func migrator(dir string, functions ...*goose.Migration) (migrate.Migrator, error) {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		return nil, err
	}
	return tenancygoose.New(tenancygoose.Config{Dialect: goose.DialectSQLite3, FS: sub, Go: functions})
}

func dialect(tx *sql.Tx) gorm.Dialector { return &sqlite.Dialector{Conn: tx} }

// addNotes has a model of its own: Order changes, and a migration must not.
func addNotes(tx *gorm.DB) error {
	type Order struct{ Note string }
	if err := tx.Migrator().AddColumn(&Order{}, "Note"); err != nil {
		return err
	}
	return tx.Exec("UPDATE orders SET note = 'from before' WHERE note IS NULL").Error
}
