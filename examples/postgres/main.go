// Command postgres shows the module on PostgreSQL, with tenants on one server or
// on several. It makes databases with random names, and drops them at the end.
//
//	go run ./examples/postgres postgres://user:password@host:5432/postgres [second server's DSN]
//
// The DSNs may also be in TENANCY_EXAMPLE_DSN, separated by blanks. Their user
// needs CREATEDB.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func main() {
	dsns := os.Args[1:]
	if len(dsns) == 0 {
		dsns = strings.Fields(os.Getenv("TENANCY_EXAMPLE_DSN"))
	}
	if err := run(os.Stdout, dsns); err != nil {
		log.Fatal(err)
	}
}

// Plan is a main model, Order a tenant's.
type Plan struct {
	ID   uint
	Name string
}

type Order struct {
	ID     uint
	Title  string
	PlanID *uint
	Plan   *Plan `gorm:"constraint:-"` // no foreign key crosses databases
	tenancy.Stamp
}

// run puts the main database and acme on the first server, and bravo on the
// last one.
func run(out io.Writer, dsns []string) (err error) {
	if len(dsns) == 0 {
		return errors.New("name a server: go run ./examples/postgres postgres://user:password@host:5432/postgres")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	var made databases
	defer func() { err = errors.Join(err, made.drop()) }()
	first, last := dsns[0], dsns[len(dsns)-1]
	mainDB, err := made.create(ctx, first)
	if err != nil {
		return err
	}
	acmeDB, err := made.create(ctx, first)
	if err != nil {
		return err
	}
	bravoDB, err := made.create(ctx, last)
	if err != nil {
		return err
	}

	db, err := gorm.Open(postgres.New(postgres.Config{DSN: mainDB}), &gorm.Config{
		Logger: logger.Default.LogMode(logger.Silent), // the refusals are printed below
	})
	if err != nil {
		return err
	}
	pool, err := db.DB()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()

	engine := tenancypg.Engine{}
	plugin := tenancy.New(tenancy.Config{
		Resolver: tenancy.Static{
			"acme":  {DSN: acmeDB},
			"bravo": {DSN: bravoDB},
		},
		Engine:     engine,
		MainModels: []any{&Plan{}},
	})
	if err := db.Use(plugin); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = errors.Join(err, plugin.Close(ctx))
	}()
	if err := tenancy.Verify(db); err != nil {
		return err
	}
	if engine.Server(acmeDB) == engine.Server(bravoDB) {
		fmt.Fprintln(out, "acme and bravo are on one server")
	} else {
		fmt.Fprintln(out, "acme and bravo are on two servers")
	}
	if err := story(ctx, out, db); err != nil {
		return err
	}
	s := plugin.Stats()
	fmt.Fprintf(out, "%d pools are open, with %d connections; %d statements were refused\n", s.Pools, s.Conns, s.Refused)
	return nil
}

// story is what an application would do. No line of it knows of servers.
func story(ctx context.Context, out io.Writer, db *gorm.DB) error {
	if err := db.WithContext(tenant.Main(ctx)).AutoMigrate(&Plan{}); err != nil {
		return err
	}
	plan := Plan{Name: "gold"}
	if err := db.WithContext(ctx).Create(&plan).Error; err != nil {
		return err
	}
	for _, id := range []string{"acme", "bravo"} {
		err := tenancy.With(ctx, db, id, func(ctx context.Context, db *gorm.DB) error {
			if err := db.AutoMigrate(&Order{}); err != nil {
				return err
			}
			return db.Create(&Order{Title: "first order of " + id, PlanID: &plan.ID}).Error
		})
		if err != nil {
			return err
		}
	}

	acme, bravo := tenant.Ctx(ctx, "acme"), tenant.Ctx(ctx, "bravo")
	for _, ctx := range []context.Context{acme, bravo} {
		var order Order
		if err := db.WithContext(ctx).Preload("Plan").First(&order, 1).Error; err != nil {
			return err
		}
		id, _ := order.Tenant()
		fmt.Fprintf(out, "%s: order %d is %q, plan %s\n", id, order.ID, order.Title, order.Plan.Name)
	}
	orders, err := gorm.G[Order](db).Find(bravo)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "bravo has %d order\n", len(orders))

	refused := func(what string, err, want error) error {
		if !errors.Is(err, want) {
			return fmt.Errorf("%s: want the error %q, got %w", what, want, err)
		}
		fmt.Fprintf(out, "refused, %s: %v\n", what, err)
		return nil
	}
	if err := refused("no tenant", db.WithContext(ctx).Find(&orders).Error, tenancy.ErrNoTenant); err != nil {
		return err
	}
	err = db.WithContext(acme).Transaction(func(tx *gorm.DB) error {
		// An error nobody looks at: the commit fails all the same.
		tx.WithContext(bravo).Create(&Order{Title: "stray"})
		return nil
	})
	if err := refused("bravo in acme's transaction", err, tenancy.ErrTenantMismatch); err != nil {
		return err
	}
	var order Order
	if err := db.WithContext(acme).First(&order, 1).Error; err != nil {
		return err
	}
	return refused("acme's row saved as bravo", db.WithContext(bravo).Save(&order).Error, tenancy.ErrWrongTenant)
}
