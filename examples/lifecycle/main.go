// Command lifecycle runs a tenant's whole life: it is created, suspended,
// renamed, dumped and restored, moved and removed, while the application writes
// plain GORM.
//
//	go run ./examples/lifecycle
//
// needs nothing: it is on SQLite, in a directory that it removes. On PostgreSQL
// the DSN is an administrator's, and its database the main one, which must have
// no catalog yet:
//
//	go run ./examples/lifecycle -dsn postgres://admin:password@host:5432/main
//
// -app-dsn is the application's own role. -dsn2 and -app-dsn2 are those of a
// second server to move a tenant to. All that it made is dropped at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"
)

func main() {
	var d dsns
	flag.StringVar(&d.admin, "dsn", "", "PostgreSQL: the administrator's DSN; its database is the main one")
	flag.StringVar(&d.app, "app-dsn", "", "PostgreSQL: the application's DSN; defaults to the administrator's")
	flag.StringVar(&d.admin2, "dsn2", "", "PostgreSQL: a second server, administrator")
	flag.StringVar(&d.app2, "app-dsn2", "", "PostgreSQL: a second server, application")
	flag.Parse()
	if err := run(os.Stdout, d); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer, d dsns) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "lifecycle-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	p := onSQLite(dir)
	if d.admin != "" {
		if p, err = onPostgres(ctx, d); err != nil {
			return err
		}
	}
	a, err := open(ctx, out, p, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"a tenant is created", a.create},
		{"sign-up takes a database that is ready", a.ready},
		{"out of service and back", a.suspend},
		{"another id", a.rename},
		{"a copy, from a dump", a.copy},
		{"a database that was there before", a.adopt},
		{"to another server", a.move},
		{"work that failed is finished", a.resume},
		{"all of them, and some of them", a.list},
		{"the end, with a backup", a.remove},
		{"what is there is what is known", a.audit},
	} {
		fmt.Fprintf(out, "\n== %s\n", step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	return nil
}
