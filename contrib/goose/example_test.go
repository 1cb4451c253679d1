package tenancygoose_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"testing/fstest"

	"github.com/glebarez/sqlite"
	"github.com/pressly/goose/v3"
	"gorm.io/gorm"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
)

func Example() {
	// In an application, an embed.FS.
	files := fstest.MapFS{
		"00001_users.sql": {Data: []byte("-- +goose Up\nCREATE TABLE users (id integer PRIMARY KEY, name text);\n")},
	}
	admin := tenancygoose.GORM(2, "admin",
		func(tx *sql.Tx) gorm.Dialector { return &sqlite.Dialector{Conn: tx} },
		func(tx *gorm.DB) error {
			type User struct {
				ID   uint
				Name string
			}
			return tx.Create(&User{Name: "admin"}).Error
		})
	m, err := tenancygoose.New(tenancygoose.Config{
		Dialect: goose.DialectSQLite3,
		FS:      files,
		Go:      []*goose.Migration{admin},
	})
	if err != nil {
		log.Fatal(err)
	}

	// The runner does the rest with every tenant's database, under its lock.
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	target, _ := m.Target()
	applied, err := m.Up(context.Background(), db, target)
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range applied {
		fmt.Println(a.Version, a.Name)
	}
	// Output:
	// 1 00001_users.sql
	// 2 00002_admin.go
}
