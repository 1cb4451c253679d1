package catalog_test

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// On PostgreSQL, with a role for the application and one for administration.
// docs/lifecycle.md has the SQL that makes them.
func Example_postgres() {
	ctx := context.Background()

	db, err := gorm.Open(postgres.Open(os.Getenv("MAIN_DSN")), &gorm.Config{})
	must(err)
	server, err := tenancypg.NewServer(tenancypg.ServerConfig{
		App:      os.Getenv("APP_DSN"),   // postgres://app:...@db1:5432/
		Admin:    os.Getenv("ADMIN_DSN"), // postgres://tenancy_admin:...@db1:5432/postgres
		Settings: map[string]string{"statement_timeout": "30s"},
	})
	must(err)
	defer server.Close()

	cat, err := catalog.New(db, catalog.Config{
		Servers:  map[string]catalog.Server{"db1": server}, // a name is for ever
		Migrator: invoices,
		Ready:    5,
		Backup:   catalog.BackupDir("/var/backups/tenants"),
	})
	must(err)
	must(cat.Migrate(ctx)) // the catalog's own tables

	plugin := tenancy.New(tenancy.Config{
		Resolver: cat,
		Engine:   tenancypg.Engine{},
		Pools:    tenancy.Limits{Servers: map[string]int{"db1": 40}}, // by the catalog's names
	})
	must(db.Use(plugin))

	go func() { log.Print(cat.Run(ctx)) }() // in one process or in all
}

// What an operation's error asks for.
func Example_errors() {
	var cat *catalog.Catalog
	remove := func(w http.ResponseWriter, r *http.Request) {
		_, err := cat.Remove(r.Context(), r.PathValue("id"), catalog.RemoveOptions{Drain: 10 * time.Second})
		switch {
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		case errors.Is(err, tenancy.ErrTenantNotFound):
			http.Error(w, "no such tenant", http.StatusNotFound)
		case errors.Is(err, catalog.ErrBusy):
			http.Error(w, "somebody is at work on it, try again", http.StatusConflict)
		default: // what was begun is finished by Resume, or by the next call
			log.Print(err)
			http.Error(w, "it goes on later", http.StatusAccepted)
		}
	}
	_ = remove
}
