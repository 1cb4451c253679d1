package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	tenancyriver "github.com/gorm-tenancy/tenancy/contrib/river"
)

// invoiceOrder is a job of a tenant, which is in its metadata.
type invoiceOrder struct {
	Order uint `json:"order"`
}

func (invoiceOrder) Kind() string { return "invoice_order" }

// invoiceMissed is a job of the main database. It enqueues invoices that were
// not when their order came: the order and the job are in two databases, so no
// transaction has both.
type invoiceMissed struct{}

func (invoiceMissed) Kind() string { return "invoice_missed" }

// missedAfter is how old an order without an invoice is before it counts as
// missed.
const missedAfter = time.Minute

// openQueue puts River's tables into the main database: one queue for all
// tenants.
func (a *app) openQueue(ctx context.Context, e engine, main *sql.DB) error {
	driver, pool, err := e.queue(main)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, pool)
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: a.log})
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	tenants, err := tenancyriver.New(tenancyriver.Config{Main: []string{invoiceMissed{}.Kind()}, Check: a.plugin.Check})
	if err != nil {
		return err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(a.invoice))
	river.AddWorker(workers, river.WorkFunc(a.invoiceMissed))
	a.queue, err = river.NewClient(driver, &river.Config{
		Middleware: []rivertype.Middleware{tenants},
		Workers:    workers,
		Queues:     map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 4}},
		PeriodicJobs: []*river.PeriodicJob{river.NewPeriodicJob(river.PeriodicInterval(missedAfter),
			func() (river.JobArgs, *river.InsertOpts) { return invoiceMissed{}, nil },
			&river.PeriodicJobOpts{RunOnStart: true})},
		Logger: a.log,
	})
	return err
}

// invoice writes to the tenant of the job. A job may be worked twice, so it
// repeats nothing.
func (a *app) invoice(ctx context.Context, job *river.Job[invoiceOrder]) error {
	var order Order
	if err := a.db.WithContext(ctx).First(&order, job.Args.Order).Error; err != nil {
		return err
	}
	return a.db.WithContext(ctx).Clauses(clause.OnConflict{DoNothing: true}).
		Create(&Invoice{OrderID: order.ID, Number: fmt.Sprintf("%d-%04d", order.CreatedAt.Year(), order.ID)}).Error
}

func (a *app) invoiceMissed(ctx context.Context, _ *river.Job[invoiceMissed]) error {
	ids := a.tenants.IDs(ctx, catalog.Filter{})
	return tenancy.Each(ctx, a.db, ids, tenancy.EachOptions{}, func(ctx context.Context, _ string, db *gorm.DB) error {
		var missed []Order
		err := db.Where("created_at < ?", time.Now().Add(-missedAfter)).
			Where("NOT EXISTS (SELECT 1 FROM invoices WHERE order_id = orders.id)").Limit(100).Find(&missed).Error
		if err != nil {
			return err
		}
		for _, order := range missed {
			// One at a time, however often it is found.
			once := &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}}
			if _, err := a.queue.Insert(ctx, invoiceOrder{order.ID}, once); err != nil {
				return err
			}
		}
		return nil
	})
}
