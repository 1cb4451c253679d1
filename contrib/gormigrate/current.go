package tenancygormigrate

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// state is what gormigrate has noted in a database.
type state struct {
	applied map[string]bool // with initSchemaID, if that was run
	unknown []string        // those of applied that are not in the list
	// current is the number of migrations that were applied, from the
	// beginning of the list up to the first that was not.
	current int64
	missing string // that first one, if a later one was applied
}

// Current is migrate.Migrator's. A database that has had all of the list and
// more is at the number of all it has had, which is what a newer program says
// of it.
func (m *migrator) Current(ctx context.Context, db *sql.DB) (int64, error) {
	g, err := m.open(ctx, db)
	if err != nil {
		return 0, err
	}
	s, err := m.read(g)
	if err != nil {
		return 0, err
	}
	if len(s.unknown) > 0 && s.current == m.newest() {
		return m.newest() + int64(len(s.unknown)), nil
	}
	return s.current, m.refuse(s)
}

// open makes GORM's handle of db. It belongs to one call.
func (m *migrator) open(ctx context.Context, db *sql.DB) (*gorm.DB, error) {
	cfg := &gorm.Config{Logger: logger.Discard}
	if m.cfg.GORM != nil {
		if cfg = m.cfg.GORM(); cfg == nil {
			return nil, errors.New("tenancygormigrate: Config.GORM returned nil")
		}
	}
	// Its cache has a goroutine that nothing ends (gorm
	// internal/lru/lru.go, NewLRU).
	cfg.PrepareStmt = false
	cfg.DisableAutomaticPing = true // the first query tells the same
	g, err := gorm.Open(m.cfg.Dialector(db), cfg)
	if err != nil {
		return nil, fmt.Errorf("tenancygormigrate: %w", err)
	}
	return g.WithContext(ctx), nil
}

// read takes one query, and writes nothing.
func (m *migrator) read(db *gorm.DB) (state, error) {
	var ids []string
	err := db.Table(m.options.TableName).Pluck(m.options.IDColumnName, &ids).Error
	// GORM's HasTable would say that a table is missing also when the
	// connection is.
	if err != nil && !sqlerr.MissingTable(err) {
		return state{}, fmt.Errorf("tenancygormigrate: %w", err)
	}
	s := state{applied: make(map[string]bool, len(ids))}
	for _, id := range ids {
		s.applied[id] = true
	}
	known := map[string]bool{initSchemaID: true}
	missing := ""
	for i, migration := range m.cfg.Migrations {
		known[migration.ID] = true
		switch {
		case !s.applied[migration.ID]:
			missing = cmp.Or(missing, migration.ID)
		case missing == "":
			s.current = int64(i + 1)
		default:
			s.missing = missing
		}
	}
	for id := range s.applied {
		if !known[id] {
			s.unknown = append(s.unknown, id)
		}
	}
	slices.Sort(s.unknown)
	return s, nil
}

// refuse says why nothing should be applied to a database.
func (m *migrator) refuse(s state) error {
	if len(s.unknown) > 0 {
		return fmt.Errorf("tenancygormigrate: %w: it has had %q, which Config.Migrations has not: "+
			"run the newer program, or put back what was taken out of the list", ErrNewer, s.unknown)
	}
	if s.missing != "" && !m.cfg.AllowMissing {
		return fmt.Errorf("tenancygormigrate: the database has not had %q, but a later one of the list: "+
			"move it to the end of the list, or set Config.AllowMissing", s.missing)
	}
	return nil
}
