package tenancy_test

import (
	"context"
	"encoding/json"
	"fmt"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Outbox is a table of each tenant's database: jobs that are yet to be sent.
type Outbox struct {
	ID   uint
	Kind string
}

// Message is what the queue holds. ID makes it possible to notice a second one.
type Message struct {
	ID   string            `json:"id"`
	Kind string            `json:"kind"`
	Meta tenant.MapCarrier `json:"meta"`
}

// A job is written in the transaction of what it is about. A sweep takes it to
// the queue, and a worker works for the tenant that the message names.
func Example_outbox() {
	db, done := exampleDB(tenancy.Limits{}, "acme", "bravo")
	defer done()
	bg := context.Background()
	for _, id := range []string{"acme", "bravo"} {
		must(db.WithContext(tenant.Ctx(bg, id)).AutoMigrate(&Outbox{}))
	}

	// The request: both rows or none.
	ctx := tenant.Pin(bg, "acme")
	must(db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&Invoice{Cents: 4200}).Error; err != nil {
			return err
		}
		return tx.Create(&Outbox{Kind: "send-invoice"}).Error
	}))

	// The relay: what was read from a tenant's database is that tenant's.
	queue := make(chan []byte, 10)
	must(tenancy.Each(bg, db, ids("acme", "bravo"), tenancy.EachOptions{},
		func(ctx context.Context, id string, db *gorm.DB) error {
			var jobs []Outbox
			if err := db.Order("id").Find(&jobs).Error; err != nil {
				return err
			}
			for _, job := range jobs {
				m := Message{ID: fmt.Sprintf("%s-%d", id, job.ID), Kind: job.Kind, Meta: tenant.MapCarrier{}}
				if err := tenant.Inject(ctx, m.Meta); err != nil {
					return err
				}
				text, err := json.Marshal(m)
				if err != nil {
					return err
				}
				queue <- text // then it is the queue's; a crash before the next line sends it twice
				if err := db.Delete(&job).Error; err != nil {
					return err
				}
			}
			return nil
		}))
	queue <- []byte(`{"id":"x","kind":"send-invoice"}`) // somebody forgot the tenant
	close(queue)

	// The worker.
	for text := range queue {
		var m Message
		must(json.Unmarshal(text, &m))
		ctx, err := tenant.Extract(bg, m.Meta)
		if err != nil {
			fmt.Println(m.ID, "is set aside:", err)
			continue
		}
		var last Invoice
		must(db.WithContext(ctx).Last(&last).Error)
		fmt.Println(m.ID, m.Kind, last.Cents)
	}
	// Output:
	// acme-1 send-invoice 4200
	// x is set aside: tenant: extract: no tenant: the carrier has no "tenancy-tenant"; the sender must call tenant.Inject
}
