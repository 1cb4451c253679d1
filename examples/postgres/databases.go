package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// databases are those that this program made, and drops.
type databases []database

type database struct{ server, name string }

// create makes a database with a random name on the server, and returns its
// DSN.
func (d *databases) create(ctx context.Context, server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// The error would repeat the DSN, and its password.
		return "", errors.New("a server's DSN must be a URL: postgres://user:password@host:5432/postgres")
	}
	name := "tenancy_example_" + strings.ToLower(rand.Text()[:16])
	if err := admin(ctx, server, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("creating a database: %w", err)
	}
	*d = append(*d, database{server, name})
	u.Path = "/" + name
	return u.String(), nil
}

// drop drops them all.
func (d databases) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var errs []error
	for _, db := range d {
		errs = append(errs, admin(ctx, db.server, "DROP DATABASE "+pgx.Identifier{db.name}.Sanitize()))
	}
	return errors.Join(errs...)
}

func admin(ctx context.Context, server, sql string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}
