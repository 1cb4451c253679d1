package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/riverqueue/river"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Order and Letter are a tenant's models.
type Order struct {
	ID    uint
	Title string
}

type Letter struct {
	ID   uint
	Text string
}

// invoice and reminder are jobs of a tenant, which is in none of their fields.
type invoice struct {
	Order string `json:"order"`
}

func (invoice) Kind() string { return "invoice" }

type reminder struct{}

func (reminder) Kind() string { return "reminder" }

// remindAll is work for the main database: it is in tenancyriver.Config.Main. A
// periodic job is such a one too.
type remindAll struct{}

func (remindAll) Kind() string { return "remind_all" }

// workers has what works the jobs. Of tenants it knows that ctx has one.
func workers(db *gorm.DB, tenants *catalog.Catalog) *river.Workers {
	ws := river.NewWorkers()
	river.AddWorker(ws, river.WorkFunc(func(ctx context.Context, job *river.Job[invoice]) error {
		return db.WithContext(ctx).Create(&Letter{Text: "invoice for " + job.Args.Order}).Error
	}))
	river.AddWorker(ws, river.WorkFunc(func(ctx context.Context, _ *river.Job[reminder]) error {
		var orders int64
		if err := db.WithContext(ctx).Model(&Order{}).Count(&orders).Error; err != nil {
			return err
		}
		return db.WithContext(ctx).Create(&Letter{Text: fmt.Sprintf("you have %d open orders", orders)}).Error
	}))
	river.AddWorker(ws, river.WorkFunc(func(ctx context.Context, _ *river.Job[remindAll]) error {
		queue := river.ClientFromContext[*sql.Tx](ctx)
		for id, err := range tenants.IDs(ctx, catalog.Filter{}) {
			if err != nil {
				return err
			}
			if _, err := queue.Insert(tenant.Ctx(ctx, id), reminder{}, nil); err != nil {
				return err
			}
		}
		return nil
	}))
	return ws
}
