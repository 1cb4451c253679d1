package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// order is a request's handler. The row and the job are in two databases, so
// there is no transaction over both: see docs/jobs.md for an outbox.
func (a *app) order(ctx context.Context, title string) error {
	if err := a.db.WithContext(ctx).Create(&Order{Title: title}).Error; err != nil {
		return err
	}
	_, err := a.queue.Insert(ctx, invoice{Order: title}, nil)
	return err
}

// done waits until n jobs are completed.
func (a *app) done(ctx context.Context, n int) error {
	for range n {
		e, err := a.next(ctx)
		if err != nil {
			return err
		}
		if e.Kind != river.EventKindJobCompleted {
			return fmt.Errorf("job %d of kind %s: %s: %v", e.Job.ID, e.Job.Kind, e.Kind, e.Job.Errors)
		}
	}
	return nil
}

// next waits until something happens to a job.
func (a *app) next(ctx context.Context) (*river.Event, error) {
	select {
	case e := <-a.events:
		return e, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// suspended enqueues a job for a tenant that is suspended when it is worked.
func (a *app) suspended(ctx context.Context, id string) error {
	if err := a.tenants.Suspend(ctx, id, catalog.SuspendOptions{}); err != nil {
		return err
	}
	if _, err := a.queue.Insert(a.request(ctx, id), invoice{Order: "rocket"}, nil); err != nil {
		return err
	}
	e, err := a.next(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out, id, "is suspended:", strings.ReplaceAll(string(e.Kind), "_", " "))
	if err := a.tenants.Unsuspend(ctx, id); err != nil {
		return err
	}
	for e.Kind == river.EventKindJobSnoozed {
		if e, err = a.next(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintln(a.out, id, "is back:", strings.ReplaceAll(string(e.Kind), "_", " "))
	return nil
}

// stray enqueues a job as a client without the middleware does.
func (a *app) stray(ctx context.Context) error {
	bare, err := river.NewClient(riverdatabasesql.New(a.main), &river.Config{})
	if err != nil {
		return err
	}
	inserted, err := bare.Insert(ctx, invoice{Order: "whose?"}, nil)
	if err != nil {
		return err
	}
	e, err := a.next(ctx)
	if err != nil {
		return err
	}
	text := e.Job.Errors[0].Error
	fmt.Fprintln(a.out, "worked:", strings.Replace(text, fmt.Sprint("job ", inserted.Job.ID), "a job", 1))
	return nil
}

// print shows what is in the tenant's database.
func (a *app) print(ctx context.Context, id string) error {
	var letters []string
	err := a.db.WithContext(tenant.Ctx(ctx, id)).Model(&Letter{}).Order("id").Pluck("text", &letters).Error
	fmt.Fprintf(a.out, "%s has the letters: %s\n", id, strings.Join(letters, "; "))
	return err
}
