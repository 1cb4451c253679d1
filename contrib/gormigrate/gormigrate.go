// Package tenancygormigrate lets gormigrate migrate tenants' databases: the
// list of migrations that an application has already, as package migrate's
// Migrator.
//
//	m, err := tenancygormigrate.New(tenancygormigrate.Config{
//		Migrations: migrations, // []*gormigrate.Migration
//		Dialector: func(db *sql.DB) gorm.Dialector {
//			return postgres.New(postgres.Config{Conn: db})
//		},
//	})
//
// The version of a database is the number of migrations of the list that it has
// had. So the list only grows, at its end.
//
// gormigrate takes no lock. The caller holds the database's migration lock (see
// [migrate.Locker]).
package tenancygormigrate

import (
	"cmp"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/go-gormigrate/gormigrate/v2"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// ErrNewer is returned when a database has had a migration that is not in the
// list. gormigrate itself says nothing then, unless it is asked to.
var ErrNewer = errors.New("the database is newer than this program's migrations")

// Config is what [New] needs.
type Config struct {
	// Migrations are in the order in which they are applied. At least one.
	Migrations []*gormigrate.Migration
	// Dialector opens a database for GORM. For PostgreSQL it returns
	// postgres.New(postgres.Config{Conn: db}), for SQLite
	// &sqlite.Dialector{Conn: db}. It has no default.
	Dialector func(db *sql.DB) gorm.Dialector
	// GORM returns a new configuration at each call, for applications whose
	// migrations need one, a NamingStrategy for instance. PrepareStmt has no
	// effect. Defaults to GORM's own, without a logger.
	GORM func() *gorm.Config
	// Options are gormigrate's. The zero value and gormigrate.DefaultOptions
	// are the same. Two have no effect: UseTransaction, see NoTransaction, and
	// ValidateUnknownMigrations, which is always done.
	Options gormigrate.Options
	// InitSchema makes the newest schema in an empty database, instead of all
	// migrations one by one. See [gormigrate.Gormigrate.InitSchema].
	InitSchema gormigrate.InitSchemaFunc
	// NoTransaction are the IDs of migrations that can't be in a transaction,
	// as CREATE INDEX CONCURRENTLY. One that fails half-way is run again from
	// its beginning, and must bear that. Each of the others has a transaction
	// of its own, with the note of its ID in it.
	NoTransaction []string
	// AllowMissing applies a migration also to databases that have had a later
	// one already, as gormigrate does. It happens when branches are merged.
	// Defaults to an error.
	AllowMissing bool
	// Revision becomes a part of the fingerprint. Change it when the code of
	// a migration changes, which New can't see.
	Revision string
}

type migrator struct {
	cfg         Config
	options     gormigrate.Options
	fingerprint string
}

// New returns the Migrator of cfg. What is wrong with the list is an error
// here, not in the first tenant's database.
func New(cfg Config) (migrate.Migrator, error) {
	cfg.Migrations = slices.Clone(cfg.Migrations)
	cfg.NoTransaction = slices.Clone(cfg.NoTransaction)
	options := gormigrate.Options{
		TableName:    cmp.Or(cfg.Options.TableName, gormigrate.DefaultOptions.TableName),
		IDColumnName: cmp.Or(cfg.Options.IDColumnName, gormigrate.DefaultOptions.IDColumnName),
		IDColumnSize: cmp.Or(cfg.Options.IDColumnSize, gormigrate.DefaultOptions.IDColumnSize),
	}
	if err := validate(&cfg, &options); err != nil {
		return nil, fmt.Errorf("tenancygormigrate: %w", err)
	}
	return &migrator{cfg, options, fingerprint(&cfg, &options)}, nil
}

// initSchemaID is what gormigrate notes for InitSchema (gormigrate.go,
// initSchemaMigrationID).
const initSchemaID = "SCHEMA_INIT"

// gormigrate checks the list, too, but only when it has a database.
func validate(c *Config, o *gormigrate.Options) error {
	if c.Dialector == nil {
		return errors.New("Config.Dialector is nil: return postgres.New(postgres.Config{Conn: db}), or &sqlite.Dialector{Conn: db}")
	}
	if len(c.Migrations) == 0 {
		// With InitSchema alone, a database would be at 0 before and after it.
		return fmt.Errorf("%w: Config.Migrations needs one, also if there is an InitSchema", gormigrate.ErrNoMigrationDefined)
	}
	seen := map[string]bool{}
	for i, m := range c.Migrations {
		switch {
		case m == nil:
			return fmt.Errorf("Config.Migrations[%d] is nil", i)
		case m.ID == "":
			return fmt.Errorf("%w: give Config.Migrations[%d] one", gormigrate.ErrMissingID, i)
		case m.ID == initSchemaID:
			return fmt.Errorf("%w: rename it", &gormigrate.ReservedIDError{ID: m.ID})
		case seen[m.ID]:
			return fmt.Errorf("%w: rename the later one", &gormigrate.DuplicatedIDError{ID: m.ID})
		case utf8.RuneCountInString(m.ID) > o.IDColumnSize:
			return fmt.Errorf("the ID %q is longer than the column, which has %d: shorten it", m.ID, o.IDColumnSize)
		case m.Migrate == nil:
			return fmt.Errorf("migration %q has no Migrate function", m.ID)
		}
		seen[m.ID] = true
	}
	for _, id := range c.NoTransaction {
		if !seen[id] {
			return fmt.Errorf("Config.NoTransaction has %q, which is no ID of Config.Migrations: correct it", id)
		}
	}
	return nil
}

// fingerprint stands for all that makes the schema, except the code of
// functions.
func fingerprint(c *Config, o *gormigrate.Options) string {
	h := sha256.New()
	// With the lengths, two lists of parts are never one text.
	part := func(kind, s string) { fmt.Fprintf(h, "%s %d\n%s", kind, len(s), s) }
	for _, m := range c.Migrations {
		part("id", m.ID)
	}
	if c.InitSchema != nil {
		part("init", "")
	}
	// A template whose IDs stand in another table looks empty to gormigrate.
	part("table", o.TableName)
	part("column", o.IDColumnName)
	part("revision", c.Revision)
	return "gormigrate-" + hex.EncodeToString(h.Sum(nil))
}

// Target is migrate.Migrator's.
func (m *migrator) Target() (int64, string) { return m.newest(), m.fingerprint }

func (m *migrator) newest() int64 { return int64(len(m.cfg.Migrations)) }
