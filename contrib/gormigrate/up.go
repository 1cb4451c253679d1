package tenancygormigrate

import (
	"context"
	"database/sql"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-gormigrate/gormigrate/v2"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// Up is migrate.Migrator's.
func (m *migrator) Up(ctx context.Context, db *sql.DB, to int64) ([]migrate.Applied, error) {
	if to < 1 || to > m.newest() {
		return nil, fmt.Errorf("tenancygormigrate: there is no version %d; the newest is %d", to, m.newest())
	}
	g, err := m.open(ctx, db)
	if err != nil {
		return nil, err
	}
	s, err := m.read(g)
	if err != nil {
		return nil, err
	}
	if err := m.refuse(s); err != nil {
		return nil, err
	}
	if s.current >= to {
		return nil, nil
	}
	// For PostgreSQL gormigrate looks in the first schema of the search path
	// only, and would begin anew in it (gormigrate.go,
	// createMigrationTableIfNotExists).
	if len(s.applied) > 0 && !g.Migrator().HasTable(m.options.TableName) {
		// It says the same when it couldn't look.
		if err := db.PingContext(ctx); err != nil {
			return nil, fmt.Errorf("tenancygormigrate: %w", err)
		}
		return nil, fmt.Errorf("tenancygormigrate: the table %s is not in the schema where gormigrate would make it: "+
			"set the search_path, or Config.Options.TableName with a schema", m.options.TableName)
	}
	if m.cfg.InitSchema != nil && len(s.applied) == 0 {
		return m.initSchema(g, to)
	}

	var applied []migrate.Applied
	for i, migration := range m.cfg.Migrations[:to] {
		if s.applied[migration.ID] {
			continue
		}
		one := []*gormigrate.Migration{migration}
		a, err := m.run(g, int64(i+1), migration.ID, func(db *gorm.DB) error {
			return m.gormigrate(db, one).Migrate()
		})
		if err != nil {
			return applied, err
		}
		applied = append(applied, a)
	}
	return applied, nil
}

// initSchema makes the newest schema, for which gormigrate notes all of the
// list.
func (m *migrator) initSchema(db *gorm.DB, to int64) ([]migrate.Applied, error) {
	if to < m.newest() {
		return nil, fmt.Errorf("tenancygormigrate: Config.InitSchema brings an empty database to version %d, not %d: "+
			"ask for that version, or do without InitSchema", m.newest(), to)
	}
	a, err := m.run(db, to, initSchemaID, func(db *gorm.DB) error {
		g := m.gormigrate(db, m.cfg.Migrations)
		g.InitSchema(m.cfg.InitSchema)
		return g.Migrate()
	})
	if err != nil {
		return nil, err
	}
	return []migrate.Applied{a}, nil
}

// gormigrate makes one for a single call: it keeps its transaction in itself,
// and fills in the options.
func (m *migrator) gormigrate(db *gorm.DB, list []*gormigrate.Migration) *gormigrate.Gormigrate {
	options := m.options
	return gormigrate.New(db, &options, list)
}

// run runs one migration in a transaction. gormigrate's own, UseTransaction, has
// all migrations of a call in it (gormigrate.go, migrate): one failure would
// undo the others, and none could be without.
func (m *migrator) run(db *gorm.DB, version int64, id string, do func(*gorm.DB) error) (_ migrate.Applied, err error) {
	began := time.Now()
	defer func() {
		// One tenant's data must not end the process that migrates all of them.
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		if err != nil {
			err = fmt.Errorf("tenancygormigrate: %w", &migrate.FailedError{Version: version, Name: id, Err: err})
		}
	}()
	if slices.Contains(m.cfg.NoTransaction, id) {
		err = do(db)
	} else {
		err = db.Transaction(do)
	}
	return migrate.Applied{Version: version, Name: id, Took: time.Since(began)}, err
}
