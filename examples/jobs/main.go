// Command jobs shows background jobs: River, in the main database on PostgreSQL,
// with one queue for all tenants. Its worker writes to the tenant of each job.
//
//	go -C examples/jobs run . postgres://user:password@host:5432/postgres
//
// It makes databases with random names, and drops them at the end. Their user
// needs CREATEDB.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("name a server: go -C examples/jobs run . postgres://user:password@host:5432/postgres")
	}
	if err := run(os.Stdout, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer, dsn string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	main, drop, err := createMain(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()
	a, err := open(ctx, out, main)
	if err != nil {
		return errors.Join(err, a.close())
	}
	defer func() { err = errors.Join(err, a.close()) }()
	return a.story(ctx)
}

// story is a day of the application.
func (a *app) story(ctx context.Context) error {
	for _, id := range []string{"acme", "bravo"} {
		if err := a.signUp(ctx, id); err != nil {
			return err
		}
	}
	if err := a.queue.Start(ctx); err != nil {
		return err
	}

	fmt.Fprintln(a.out, "# Each job is worked for the tenant that it was enqueued for")
	for _, id := range []string{"acme", "bravo"} {
		if err := a.order(a.request(ctx, id), "anvil"); err != nil {
			return err
		}
		if err := a.done(ctx, 1); err != nil {
			return err
		}
	}

	fmt.Fprintln(a.out, "# A job of the main database enqueues one for each tenant")
	if _, err := a.queue.Insert(ctx, remindAll{}, nil); err != nil {
		return err
	}
	if err := a.done(ctx, 3); err != nil {
		return err
	}

	fmt.Fprintln(a.out, "# A tenant's job waits while the tenant is suspended")
	if err := a.suspended(ctx, "acme"); err != nil {
		return err
	}

	fmt.Fprintln(a.out, "# A job without a tenant is an error")
	_, err := a.queue.Insert(ctx, invoice{Order: "whose?"}, nil)
	fmt.Fprintln(a.out, "enqueued:", err)
	if err := a.stray(ctx); err != nil {
		return err
	}

	for _, id := range []string{"acme", "bravo"} {
		if err := a.print(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
