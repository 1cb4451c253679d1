package catalog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Invoice is a tenant's model in the examples.
type Invoice struct {
	ID    uint
	Title string
}

// invoices makes a tenant's tables.
var invoices = migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS invoices (id integer PRIMARY KEY, title text NOT NULL)")
	return err
})

// shop is what the examples have in common: a main database, and a server for
// tenants' databases.
type shop struct {
	db     *gorm.DB
	server *tenancysqlite.Server
	dir    string
}

func newShop() *shop {
	dir, err := os.MkdirTemp("", "shop-")
	must(err)
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")+
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"), &gorm.Config{Logger: logger.Discard})
	must(err)
	server, err := tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: filepath.Join(dir, "tenants")})
	must(err)
	return &shop{db, server, dir}
}

func (s *shop) close() {
	if plugin, ok := tenancy.From(s.db); ok {
		must(plugin.Close(context.Background()))
	}
	must(s.server.Close())
	main, err := s.db.DB()
	must(err)
	must(main.Close())
	must(os.RemoveAll(s.dir))
}

// use makes a catalog, and a plugin that asks it.
func (s *shop) use(cfg catalog.Config) *catalog.Catalog {
	if cfg.Servers == nil {
		cfg.Servers = map[string]catalog.Server{"local": s.server}
	}
	cat, err := catalog.New(s.db, cfg)
	must(err)
	must(cat.Migrate(context.Background()))
	must(s.db.Use(tenancy.New(tenancy.Config{Resolver: cat, Engine: tenancysqlite.Engine{}})))
	return cat
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A tenant is created, and used.
func Example() {
	shop := newShop()
	defer shop.close()
	ctx := context.Background()

	cat, err := catalog.New(shop.db, catalog.Config{
		Servers:  map[string]catalog.Server{"local": shop.server},
		Migrator: invoices,
	})
	must(err)
	must(cat.Migrate(ctx)) // the catalog's own tables, in the main database
	must(shop.db.Use(tenancy.New(tenancy.Config{Resolver: cat, Engine: tenancysqlite.Engine{}})))

	acme, err := cat.Create(ctx, "acme", catalog.CreateOptions{})
	must(err)
	fmt.Println(acme.ID, acme.State)

	ctx = tenant.Ctx(ctx, "acme")
	must(shop.db.WithContext(ctx).Create(&Invoice{Title: "anvils"}).Error)
	var invoice Invoice
	must(shop.db.WithContext(ctx).First(&invoice).Error)
	fmt.Println(invoice.ID, invoice.Title)
	// Output:
	// acme active
	// 1 anvils
}

// Trial accounts get their database at their first statement, others don't.
func ExampleCatalog_OnFirstUse() {
	shop := newShop()
	defer shop.close()
	cat, err := catalog.New(shop.db, catalog.Config{
		Servers:  map[string]catalog.Server{"local": shop.server},
		Migrator: invoices,
	})
	must(err)
	must(cat.Migrate(context.Background()))

	resolver := cat.OnFirstUse(func(_ context.Context, id string) (catalog.CreateOptions, error) {
		if !strings.HasPrefix(id, "trial-") { // or ask who has signed up
			return catalog.CreateOptions{}, tenancy.ErrTenantNotFound
		}
		return catalog.CreateOptions{Labels: map[string]string{"plan": "trial"}}, nil
	})
	defer resolver.Close()
	must(shop.db.Use(tenancy.New(tenancy.Config{Resolver: resolver, Engine: tenancysqlite.Engine{}})))

	for _, id := range []string{"trial-1", "acme"} {
		ctx := tenant.Ctx(context.Background(), id)
		err := shop.db.WithContext(ctx).Create(&Invoice{Title: "anvils"}).Error
		fmt.Println(id, err == nil, errors.Is(err, tenancy.ErrTenantNotFound))
	}
	// Output:
	// trial-1 true false
	// acme false true
}

// A big server gets two tenants of three, and one that is to be emptied none.
func ExampleWeights() {
	shop := newShop()
	defer shop.close()
	servers := map[string]catalog.Server{}
	for _, name := range []string{"big", "small", "old"} {
		server, err := tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: filepath.Join(shop.dir, name)})
		must(err)
		defer server.Close()
		servers[name] = server
	}
	ctx := context.Background()
	cat := shop.use(catalog.Config{
		Servers:   servers,
		Placement: catalog.Weights(map[string]int{"big": 2, "small": 1}),
	})
	for i := range 6 {
		_, err := cat.Create(ctx, fmt.Sprintf("tenant-%d", i), catalog.CreateOptions{})
		must(err)
	}
	loads, err := cat.Loads(ctx)
	must(err)
	for _, l := range loads {
		fmt.Println(l.Server, l.Tenants)
	}
	// Output:
	// big 4
	// old 0
	// small 2
}

// A tenant that has not paid is refused, and nothing of it is lost.
func ExampleCatalog_Suspend() {
	shop := newShop()
	defer shop.close()
	cat := shop.use(catalog.Config{Migrator: invoices})
	ctx := context.Background()
	_, err := cat.Create(ctx, "acme", catalog.CreateOptions{})
	must(err)
	acme := shop.db.WithContext(tenant.Ctx(ctx, "acme"))
	must(acme.Create(&Invoice{Title: "anvils"}).Error)

	must(cat.Suspend(ctx, "acme", catalog.SuspendOptions{Reason: "unpaid"}))
	err = acme.Create(&Invoice{Title: "rockets"}).Error
	fmt.Println(errors.Is(err, tenancy.ErrTenantSuspended))

	must(cat.Unsuspend(ctx, "acme"))
	var n int64
	must(acme.Model(&Invoice{}).Count(&n).Error)
	fmt.Println(n)
	// Output:
	// true
	// 1
}

// What is removed is backed up before, and can be had again.
func ExampleBackupDir() {
	shop := newShop()
	defer shop.close()
	cat := shop.use(catalog.Config{
		Migrator: invoices,
		Backup:   catalog.BackupDir(filepath.Join(shop.dir, "backups")),
	})
	ctx := context.Background()
	_, err := cat.Create(ctx, "acme", catalog.CreateOptions{})
	must(err)
	must(shop.db.WithContext(tenant.Ctx(ctx, "acme")).Create(&Invoice{Title: "anvils"}).Error)

	removed, err := cat.Remove(ctx, "acme", catalog.RemoveOptions{})
	must(err)
	_, err = cat.Get(ctx, "acme")
	fmt.Println(removed.State, errors.Is(err, tenancy.ErrTenantNotFound))

	dump, err := os.Open(removed.Backup)
	must(err)
	defer dump.Close()
	_, err = cat.Restore(ctx, "acme", dump, catalog.CreateOptions{})
	must(err)
	var invoice Invoice
	must(shop.db.WithContext(tenant.Ctx(ctx, "acme")).First(&invoice).Error)
	fmt.Println(invoice.Title)
	// Output:
	// deleted true
	// anvils
}

// The tenants that are there are brought forward when the application is.
func ExampleCatalog_MigrateTenants() {
	shop := newShop()
	defer shop.close()
	ctx := context.Background()
	old := shop.use(catalog.Config{Migrator: invoices})
	for _, id := range []string{"acme", "bravo", "own"} {
		_, err := old.Create(ctx, id, catalog.CreateOptions{})
		must(err)
	}

	// The next version of the application.
	cat, err := catalog.New(shop.db, catalog.Config{
		Servers: map[string]catalog.Server{"local": shop.server},
		Migrator: migrate.Func(2, func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "ALTER TABLE invoices ADD COLUMN paid boolean")
			return err
		}),
	})
	must(err)
	report, err := cat.MigrateTenants(ctx, migrate.Options{
		Canaries: []string{"own"},
		OnEvent: func(e migrate.Event) {
			if e.Kind == migrate.EventCanaries {
				fmt.Println("the canary is well")
			}
		},
	})
	must(err)
	for _, t := range report.Tenants {
		fmt.Println(t.Tenant, t.Status, "from", t.From, "to", t.To)
	}
	must(shop.db.WithContext(tenant.Ctx(ctx, "acme")).Exec("UPDATE invoices SET paid = true").Error)

	report, err = cat.MigrateTenants(ctx, migrate.Options{})
	must(err)
	fmt.Println(report.Status, "up to date:", report.UpToDate)
	// Output:
	// the canary is well
	// acme done from 1 to 2
	// bravo done from 1 to 2
	// own done from 1 to 2
	// done up to date: 3
}
