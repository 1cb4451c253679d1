package tenancygoose

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// GORM returns a migration that is a function of GORM's. It runs in the
// transaction in which goose notes the version: both are done, or neither. The
// name is letters, digits and underscores, as in a file's name.
//
// The dialector opens the transaction, for PostgreSQL
//
//	func(tx *sql.Tx) gorm.Dialector { return postgres.New(postgres.Config{Conn: tx}) }
//
// and for SQLite
//
//	func(tx *sql.Tx) gorm.Dialector { return &sqlite.Dialector{Conn: tx} }
//
// GORM logs nothing in it. If up needs another configuration, it makes a
// session: tx.Session(&gorm.Session{Logger: ...}).
//
// Models change, and a migration must not: give it a copy of the model as it
// is at this version.
func GORM(version int64, name string, dialector func(*sql.Tx) gorm.Dialector, up func(tx *gorm.DB) error) *goose.Migration {
	m := goose.NewGoMigration(version, &goose.GoFunc{
		RunTx: func(ctx context.Context, tx *sql.Tx) error {
			db, err := gorm.Open(dialector(tx), &gorm.Config{Logger: logger.Discard})
			if err != nil {
				return err
			}
			return up(db.WithContext(ctx))
		},
	}, nil)
	// goose has no other place for a name, and wants it to look like a file
	// (goose globals.go, checkGoMigration).
	m.Source = fmt.Sprintf("%05d_%s.go", version, name)
	return m
}
