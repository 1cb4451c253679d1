// Package tenancygoose lets goose migrate tenants' databases: SQL files, Go
// functions, or both, as package migrate's Migrator.
//
//	//go:embed *.sql
//	var migrations embed.FS
//
//	m, err := tenancygoose.New(tenancygoose.Config{
//		Dialect: goose.DialectPostgres,
//		FS:      migrations,
//	})
//
// An application that uses goose already hands over the same files; what goose
// has noted in a database stays as it is.
//
// The caller holds the database's migration lock (see [migrate.Locker]), so
// goose is given none: its own polls, once in some seconds.
package tenancygoose

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// ErrNewer is returned when a database has a migration that is newer than all
// that the Migrator knows. goose itself says nothing then.
var ErrNewer = errors.New("the database is newer than this program's migrations")

// Config is what [New] needs.
type Config struct {
	// Dialect is goose.DialectPostgres or goose.DialectSQLite3. It has no
	// default.
	Dialect goose.Dialect
	// FS has the SQL files at its root (see [fs.Sub]), and may be nil if there
	// are only Go migrations. New reads it once; later changes have no effect.
	//
	// As with goose's own tool, files whose name doesn't begin with a number
	// are left alone. A Go file that has a version must be in Go also.
	FS fs.FS
	// Go are migrations that are functions; see [GORM] and
	// [goose.NewGoMigration]. goose's global registry is not looked at: in it,
	// whatever any imported package registers would run in each tenant's
	// database.
	Go []*goose.Migration
	// Table is the one that goose notes versions in. Defaults to
	// "goose_db_version".
	Table string
	// AllowMissing applies a migration also to databases that have a later
	// one already. It happens when branches are merged. Defaults to an error.
	AllowMissing bool
	// Revision becomes a part of the fingerprint. Change it when a function of
	// Go changes, whose code New can't see, or the environment of files with
	// "-- +goose ENVSUB ON".
	Revision string
}

type migrator struct {
	cfg         Config
	store       database.Store
	files       files
	versions    []int64 // ascending
	fingerprint string
}

// New returns the Migrator of cfg. What is wrong with the migrations
// themselves is an error here, not in the first tenant's database.
func New(cfg Config) (migrate.Migrator, error) {
	if cfg.Table == "" {
		cfg.Table = goose.DefaultTablename
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("tenancygoose: %w", err)
	}
	cfg.Go = slices.Clone(cfg.Go)
	m := &migrator{cfg: cfg}
	var goFiles files
	var err error
	if cfg.FS != nil {
		if m.files, goFiles, err = readFiles(cfg.FS); err != nil {
			return nil, fmt.Errorf("tenancygoose: %w", err)
		}
		if err := unregistered(goFiles, cfg.Go); err != nil {
			return nil, fmt.Errorf("tenancygoose: %w", err)
		}
	}
	if m.versions, err = check(m.files, cfg.Go); err != nil {
		return nil, fmt.Errorf("tenancygoose: %w", err)
	}
	if m.store, err = database.NewStore(cfg.Dialect, cfg.Table); err != nil {
		return nil, fmt.Errorf("tenancygoose: %w", err)
	}
	m.fingerprint = fingerprint(cfg, m.files, goFiles)
	return m, nil
}

// goose puts the name into its SQL without quotes, and asks PostgreSQL for it
// in quotes: one with capitals would never be found (goose
// internal/dialects/postgres.go, TableExists).
var tableName = regexp.MustCompile(`^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$`)

func (c *Config) validate() error {
	if c.Dialect != goose.DialectPostgres && c.Dialect != goose.DialectSQLite3 {
		return fmt.Errorf("Config.Dialect is %q: use goose.DialectPostgres or goose.DialectSQLite3", c.Dialect)
	}
	name := c.Table
	if c.Dialect == goose.DialectSQLite3 {
		name = strings.ToLower(name)
	}
	if !tableName.MatchString(name) {
		return fmt.Errorf("Config.Table is %q: use a name of lower-case letters, digits and underscores", c.Table)
	}
	if c.FS == nil && len(c.Go) == 0 {
		return errors.New("no migrations: set Config.FS, Config.Go, or both")
	}
	for i, g := range c.Go {
		if g == nil {
			return fmt.Errorf("Config.Go[%d] is nil: use GORM or goose.NewGoMigration", i)
		}
	}
	return nil
}

func (m *migrator) newest() int64 { return m.versions[len(m.versions)-1] }

// Target is migrate.Migrator's.
func (m *migrator) Target() (int64, string) { return m.newest(), m.fingerprint }
