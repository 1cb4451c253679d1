package main

import (
	"context"
	"fmt"
	"iter"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// ids lists the tenants. An application reads them from where it keeps them.
func ids() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, id := range []string{"acme", "bravo"} {
			if !yield(id, nil) {
				return
			}
		}
	}
}

func (a *app) migrate(ctx context.Context) error {
	// DDL carries no model, so the context has to say that main is meant.
	if err := a.db.WithContext(tenant.Main(ctx)).AutoMigrate(&Plan{}); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "main: plans")
	// Order refers to Plan with constraint:-, or AutoMigrate would try to make
	// a plans table here too, and be refused.
	return tenancy.Each(ctx, a.db, ids(), tenancy.EachOptions{}, func(ctx context.Context, id string, db *gorm.DB) error {
		fmt.Fprintf(a.out, "%s: orders\n", id)
		return db.AutoMigrate(&Order{})
	})
}

func (a *app) use(ctx context.Context) error {
	// A main model needs no tenant.
	plan := Plan{Name: "gold"}
	if err := a.db.WithContext(ctx).Create(&plan).Error; err != nil {
		return err
	}

	// Middleware puts the tenant into the context, once per request.
	acme, bravo := tenant.Ctx(ctx, "acme"), tenant.Ctx(ctx, "bravo")

	// From there on it is plain GORM.
	if err := a.db.WithContext(acme).Create(&Order{Title: "anvil", PlanID: &plan.ID}).Error; err != nil {
		return err
	}
	var order Order
	if err := a.db.WithContext(acme).Preload("Plan").First(&order, 1).Error; err != nil {
		return err
	}
	fmt.Fprintf(a.out, "acme's order 1: %s, plan %s\n", order.Title, order.Plan.Name)

	// gorm.G takes the context with each call.
	if err := gorm.G[Order](a.db).Create(bravo, &Order{Title: "rocket"}); err != nil {
		return err
	}
	other, err := gorm.G[Order](a.db).Where("id = ?", 1).First(bravo)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "bravo's order 1: %s\n", other.Title)

	// Under a tenant's context a main model still comes from main.
	var plans []Plan
	if err := a.db.WithContext(bravo).Find(&plans).Error; err != nil {
		return err
	}
	fmt.Fprintf(a.out, "plans, read as bravo: %d, from the main database\n", len(plans))

	// A piece of work that is not a request: a job, a script.
	return tenancy.With(ctx, a.db, "acme", func(ctx context.Context, db *gorm.DB) error {
		return db.Transaction(func(tx *gorm.DB) error {
			if err := tx.Create(&Order{Title: "spring"}).Error; err != nil {
				return err
			}
			var n int64
			err := tx.Model(&Order{}).Count(&n).Error
			fmt.Fprintf(a.out, "acme has %d orders, counted in a transaction\n", n)
			return err
		})
	})
}

func (a *app) stats(context.Context) error {
	s := a.plugin.Stats()
	fmt.Fprintf(a.out, "%d of at most %d pools, %d connections, %d statements refused\n",
		s.Pools, s.MaxPools, s.Conns, s.Refused)
	return nil
}
