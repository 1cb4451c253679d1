package tenancygoose

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// Up is migrate.Migrator's. Each migration has its own transaction, with the
// note of its version in it, unless it says NO TRANSACTION.
func (m *migrator) Up(ctx context.Context, db *sql.DB, to int64) ([]migrate.Applied, error) {
	if !slices.Contains(m.versions, to) {
		return nil, fmt.Errorf("tenancygoose: there is no migration %d; the newest is %d", to, m.newest())
	}
	s, err := m.read(ctx, db)
	if err != nil {
		return nil, err
	}
	if err := m.refuse(s, db, to); err != nil {
		return nil, fmt.Errorf("tenancygoose: %w", err)
	}
	if m.current(s) >= to {
		return nil, nil
	}
	if !s.table {
		if err := m.makeTable(ctx, db); err != nil {
			return nil, fmt.Errorf("tenancygoose: %w", err)
		}
		s.rows = []*database.ListMigrationsResult{{IsApplied: true}} // version 0
	}
	// A provider is for one try in one database: after one that failed, it
	// takes the table for made (goose provider_run.go, ensureVersionTable).
	p, err := goose.NewProvider(goose.DialectCustom, db, m.files, append(options(),
		goose.WithStore(&readStore{Store: m.store, rows: s.rows}),
		goose.WithGoMigrations(m.cfg.Go...),
		goose.WithAllowOutofOrder(m.cfg.AllowMissing))...)
	if err != nil {
		return nil, fmt.Errorf("tenancygoose: %w", err)
	}
	results, err := p.UpTo(ctx, to)
	return report(results, err)
}

// refuse says why goose should not even be asked.
func (m *migrator) refuse(s state, db *sql.DB, to int64) error {
	if s.newest > m.newest() {
		return fmt.Errorf("%w: it is at %d, and the newest here is %d: run the newer program",
			ErrNewer, s.newest, m.newest())
	}
	missing, ok := m.missing(s)
	if ok && missing < s.newest && missing <= to && !m.cfg.AllowMissing {
		return fmt.Errorf("the database is at %d, but has not had migration %d, which must have been added later: "+
			"give it a higher version, or set Config.AllowMissing", s.newest, missing)
	}
	if db.Stats().MaxOpenConnections != 1 {
		return nil
	}
	for _, g := range m.cfg.Go {
		if g.Version <= to && !s.applied[g.Version] && g.UpFnNoTxContext != nil {
			// goose keeps a connection while it gives db to the function, which
			// would wait for ever (goose provider_run.go, prepareMigration).
			return fmt.Errorf("migration %d is a function without a transaction, which needs a second connection: "+
				"db.SetMaxOpenConns(2)", g.Version)
		}
	}
	return nil
}

// makeTable makes goose's table as goose does (goose provider_run.go,
// tryEnsureVersionTable), but tries once: goose tries four times in three
// seconds, because it does this without a lock, and here there is one.
func (m *migrator) makeTable(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	if err := m.store.CreateVersionTable(ctx, tx); err != nil {
		return err
	}
	if err := m.store.Insert(ctx, tx, database.InsertRequest{Version: 0}); err != nil {
		return err
	}
	return tx.Commit()
}

// report says what goose did in package migrate's words.
func report(results []*goose.MigrationResult, err error) ([]migrate.Applied, error) {
	if err != nil {
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			results = partial.Applied
			err = &migrate.FailedError{
				Version: partial.Failed.Source.Version,
				Name:    name(partial.Failed.Source),
				Err:     partial.Err,
			}
		}
		err = fmt.Errorf("tenancygoose: %w", err)
	}
	var applied []migrate.Applied
	for _, r := range results {
		applied = append(applied, migrate.Applied{Version: r.Source.Version, Name: name(r.Source), Took: r.Duration})
	}
	return applied, err
}

func name(s *goose.Source) string {
	if s.Path == "" {
		return "go"
	}
	return path.Base(s.Path)
}
