package tenancygormigrate_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	"github.com/glebarez/sqlite"
	"github.com/go-gormigrate/gormigrate/v2"
	"gorm.io/gorm"

	tenancygormigrate "github.com/gorm-tenancy/tenancy/contrib/gormigrate"
)

func Example() {
	// The list that the application gave to gormigrate.New until now.
	migrations := []*gormigrate.Migration{
		{ID: "202601021504", Migrate: func(tx *gorm.DB) error {
			type User struct{ ID uint }
			return tx.AutoMigrate(&User{})
		}},
		{ID: "202603041200", Migrate: func(tx *gorm.DB) error {
			type User struct{ Name string }
			return tx.Migrator().AddColumn(&User{}, "Name")
		}},
	}
	m, err := tenancygormigrate.New(tenancygormigrate.Config{
		Migrations: migrations,
		Dialector:  func(db *sql.DB) gorm.Dialector { return &sqlite.Dialector{Conn: db} },
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
	// 1 202601021504
	// 2 202603041200
}
