package catalog_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// steps is a Migrator of numbered steps. Each writes a row into the table
// applied, which has no constraint: a step that was applied twice shows.
type steps struct {
	target int64
	// before, if set, is called in the transaction of each step.
	before func(ctx context.Context, tx *sql.Tx, version int64) error
	print  string // makes another fingerprint of it
}

func (s steps) Target() (int64, string) {
	return s.target, fmt.Sprintf("steps-%d%s", s.target, s.print)
}

func (s steps) Current(ctx context.Context, db *sql.DB) (int64, error) {
	var v sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT max(version) FROM applied").Scan(&v)
	if sqlerr.MissingTable(err) {
		return 0, nil
	}
	return v.Int64, err
}

func (s steps) Up(ctx context.Context, db *sql.DB, to int64) (applied []migrate.Applied, err error) {
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS applied (version bigint)"); err != nil {
		return nil, err
	}
	current, err := s.Current(ctx, db)
	if err != nil {
		return nil, err
	}
	for v := current + 1; v <= to; v++ {
		if err := s.step(ctx, db, v); err != nil {
			return applied, &migrate.FailedError{Version: v, Name: "step", Err: err}
		}
		applied = append(applied, migrate.Applied{Version: v, Name: "step"})
	}
	return applied, nil
}

func (s steps) step(ctx context.Context, db *sql.DB, v int64) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	if s.before != nil {
		if err := s.before(ctx, tx, v); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO applied VALUES (%d)", v)); err != nil {
		return err
	}
	return tx.Commit()
}

func withSteps(s steps) func(*catalog.Config) {
	return func(cfg *catalog.Config) { cfg.Migrator = s }
}

// applied reads a tenant's steps as its administrator, around the catalog: on
// PostgreSQL by a connection, which is cheaper than a session and enough for a
// tenant that is served.
func (pr *process) applied(ctx context.Context, row catalog.Tenant) (versions []int64, err error) {
	var db *sql.DB
	if admin := pr.Servers[row.Server].Admin; admin != "" && row.State == catalog.Active {
		u, err := url.Parse(admin)
		if err != nil {
			return nil, err
		}
		u.Path = "/" + row.Database
		if db, err = sql.Open("pgx", u.String()); err != nil {
			return nil, err
		}
	} else {
		s, err := pr.servers[row.Server].Session(ctx, row.Database, false)
		if err != nil {
			return nil, err
		}
		defer s.Close() //nolint:errcheck // a test's
		if db, err = s.DB(ctx); err != nil {
			return nil, err
		}
	}
	defer db.Close() //nolint:errcheck // a test's
	rows, err := db.QueryContext(ctx, "SELECT version FROM applied ORDER BY version")
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // a test's
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		versions = append(versions, v)
	}
	return versions, rows.Err()
}

func (pr *process) appliedIn(t *testing.T, row catalog.Tenant) []int64 {
	t.Helper()
	versions, err := pr.applied(t.Context(), row)
	require.NoError(t, err)
	return versions
}

// allAt says that every tenant, but for the exceptions, had each step up to
// version once.
func (pr *process) allAt(t *testing.T, version int64, but ...string) {
	t.Helper()
	var want []int64
	for v := range version {
		want = append(want, v+1)
	}
	var readers sync.WaitGroup
	places := make(chan struct{}, 8)
	for row, err := range pr.catalog.List(t.Context(), catalog.Filter{}) {
		if err != nil {
			t.Error(err)
			break
		}
		if slices.Contains(but, row.ID) {
			continue
		}
		places <- struct{}{}
		readers.Go(func() {
			defer func() { <-places }()
			got, err := pr.applied(t.Context(), row)
			if err != nil || row.Version != version || !slices.Equal(got, want) {
				t.Errorf("%+v: applied %v, want %v: %v", row, got, want, err)
			}
		})
	}
	readers.Wait()
	require.False(t, t.Failed())
}

func statuses(r *migrate.Report) map[string]migrate.Status {
	all := map[string]migrate.Status{}
	for _, t := range r.Tenants {
		all[t.Tenant] = t.Status
	}
	return all
}

// failing fails in some tenants. They are told by a row of their own.
func failing(of ...string) func(context.Context, *sql.Tx, int64) error {
	return func(ctx context.Context, tx *sql.Tx, version int64) error {
		var name string
		err := tx.QueryRowContext(ctx, "SELECT text FROM notes LIMIT 1").Scan(&name)
		if err != nil {
			return err
		}
		if version == 2 && slices.Contains(of, name) {
			_, err := tx.ExecContext(ctx, "SELECT * FROM missing_"+name)
			return err
		}
		return nil
	}
}

// named creates tenants whose database knows their name.
func (pr *process) named(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		pr.create(t, id)
		require.NoError(t, pr.in(id).Exec("UPDATE notes SET text = ?", id).Error)
	}
}

func makesNotes(ctx context.Context, tx *sql.Tx, version int64) error {
	if version > 1 {
		return nil
	}
	_, err := tx.ExecContext(ctx, "CREATE TABLE notes (text text)")
	if err == nil {
		_, err = tx.ExecContext(ctx, "INSERT INTO notes VALUES ('')")
	}
	return err
}
