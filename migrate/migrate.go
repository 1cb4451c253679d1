package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// Migrator brings one database's schema forward. It may be used for several
// databases at once.
type Migrator interface {
	// Target returns the newest version that the Migrator knows, and what
	// identifies all of its migrations: when a migration is added or changed,
	// so does the fingerprint. It names the template database that new
	// tenants are copied from.
	Target() (version int64, fingerprint string)
	// Current returns the version of db; 0 for an empty database. It writes
	// nothing.
	Current(ctx context.Context, db *sql.DB) (int64, error)
	// Up applies what is missing up to the version to, and returns what it
	// applied, also when it fails half-way. With nothing to do it returns
	// nothing.
	Up(ctx context.Context, db *sql.DB, to int64) ([]Applied, error)
}

// Applied is a migration that was applied.
type Applied struct {
	Version int64         `json:"version"`
	Name    string        `json:"name"`
	Took    time.Duration `json:"took_ns"`
}

// FailedError may be returned by [Migrator.Up] to say which migration failed.
type FailedError struct {
	Version int64
	Name    string
	Err     error
}

// Error names the migration.
func (e *FailedError) Error() string {
	return fmt.Sprintf("migration %d (%s): %v", e.Version, e.Name, e.Err)
}

// Unwrap returns Err.
func (e *FailedError) Unwrap() error { return e.Err }

// Func returns a Migrator of one function, which makes the schema of the
// version, whatever was there before: GORM's AutoMigrate, or SQL with IF NOT
// EXISTS. It must be safe to call again. What it does is not looked at, so
// raise the version when it changes. The version is kept in the table
// _tenant_schema of each database.
func Func(version int64, up func(ctx context.Context, db *sql.DB) error) Migrator {
	return function{version, up}
}

type function struct {
	version int64
	up      func(context.Context, *sql.DB) error
}

const schemaTable = "_tenant_schema"

func (f function) Target() (int64, string) {
	return f.version, "func-" + strconv.FormatInt(f.version, 10)
}

func (f function) Current(ctx context.Context, db *sql.DB) (int64, error) {
	var v sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT max(version) FROM "+schemaTable).Scan(&v)
	if err != nil && !sqlerr.MissingTable(err) {
		return 0, err
	}
	return v.Int64, nil
}

func (f function) Up(ctx context.Context, db *sql.DB, to int64) ([]Applied, error) {
	if to != f.version {
		return nil, fmt.Errorf("migrate: there is no version %d, only %d", to, f.version)
	}
	if f.up == nil {
		return nil, errors.New("migrate: Func was given no function")
	}
	current, err := f.Current(ctx, db)
	if err != nil || current >= to {
		return nil, err
	}
	began := time.Now()
	if err := f.up(ctx, db); err != nil {
		return nil, err
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+schemaTable+" (version bigint NOT NULL)"); err != nil {
		return nil, err
	}
	// The version is a number of ours.
	if _, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s VALUES (%d)", schemaTable, to)); err != nil {
		return nil, err
	}
	return []Applied{{Version: to, Name: "func", Took: time.Since(began)}}, nil
}
