// Command readme is the program in README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

type Order struct {
	ID    uint
	Title string
}

func main() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "tenancy-")
	must(err)
	defer os.RemoveAll(dir)

	// Say where each tenant's database is.
	tenants := tenancy.Static{}
	for _, id := range []string{"acme", "bravo"} {
		path := filepath.Join(dir, id+".db")
		must(tenancysqlite.Create(ctx, path))
		tenants[id] = tenancy.Database{DSN: tenancysqlite.DSN(path)}
	}

	// Open the main database as always. This one *gorm.DB serves all tenants.
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")), &gorm.Config{Logger: logger.Discard})
	must(err)
	plugin := tenancy.New(tenancy.Config{Resolver: tenants, Engine: tenancysqlite.Engine{}})
	must(db.Use(plugin))
	defer plugin.Close(ctx)

	// Put the tenant into the context, and write plain GORM.
	for id := range tenants {
		ctx := tenant.Ctx(ctx, id)
		must(db.WithContext(ctx).AutoMigrate(&Order{}))
		must(db.WithContext(ctx).Create(&Order{Title: "first order of " + id}).Error)
	}
	var order Order
	must(db.WithContext(tenant.Ctx(ctx, "acme")).First(&order).Error)
	fmt.Println(order.Title)

	// Forget it, and nothing is sent to any database.
	err = db.WithContext(ctx).First(&order).Error
	fmt.Println(errors.Is(err, tenancy.ErrNoTenant))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
