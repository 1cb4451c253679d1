package tenancygoose

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/pressly/goose/v3/database"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// state is what goose has noted in a database.
type state struct {
	table   bool // there is a table for it
	rows    []*database.ListMigrationsResult
	applied map[int64]bool
	newest  int64
}

// Current is migrate.Migrator's. If a migration is missing before others that
// were applied, it is the version before that one, so that Up is called and
// applies it or says so.
func (m *migrator) Current(ctx context.Context, db *sql.DB) (int64, error) {
	s, err := m.read(ctx, db)
	if err != nil {
		return 0, err
	}
	return m.current(s), nil
}

func (m *migrator) current(s state) (version int64) {
	if s.newest > m.newest() {
		return s.newest
	}
	missing, ok := m.missing(s)
	for v := range s.applied {
		if v > version && (!ok || v < missing) {
			version = v
		}
	}
	return version
}

// missing is the oldest migration that was not applied.
func (m *migrator) missing(s state) (version int64, ok bool) {
	for _, v := range m.versions {
		if !s.applied[v] {
			return v, true
		}
	}
	return 0, false
}

// read takes one query, and writes nothing: a Provider can't be asked anything
// without making its table (goose provider_run.go, initialize). The table is not
// looked for first: in a connection that has just begun, that takes longer than
// to read it.
func (m *migrator) read(ctx context.Context, db *sql.DB) (state, error) {
	rows, err := m.store.ListMigrations(ctx, db)
	if sqlerr.MissingTable(err) {
		return state{}, nil
	}
	if err != nil {
		return state{}, fmt.Errorf("tenancygoose: %w", err)
	}
	s := state{table: true, rows: rows, applied: make(map[int64]bool, len(rows))}
	for _, r := range rows {
		s.applied[r.Version] = true
		s.newest = max(s.newest, r.Version)
	}
	return s, nil
}
