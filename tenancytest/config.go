package tenancytest

import (
	"errors"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// KeepEnv is the environment variable that, when it is 1, makes every sandbox a
// copy, so that the databases of a failed test can be kept.
const KeepEnv = "TENANCY_TEST_KEEP"

// Config says what the databases of a [Kit] are like.
type Config struct {
	// Backend is where databases come from: testsqlite.Backend{} or
	// testpg.Backend{}. Required.
	Backend Backend
	// Migrator makes the schema of a tenant's database: the application's own, or
	// [AutoMigrate]. Required.
	Migrator migrate.Migrator
	// Main makes the schema of the main database. Defaults to AutoMigrate of the
	// MainModels that are no table names.
	Main migrate.Migrator
	// MainModels becomes [tenancy.Config.MainModels].
	MainModels []any
	// Fingerprint identifies the content of Migrator and Main, so that their
	// templates can be used by other packages and by later runs: [HashFS] of
	// the migrations' files, for instance. Whatever has the same one, of any
	// application that tests on the server, is taken for the same: if a
	// migration changes and it does not, tests run on the old schema. Defaults
	// to "", for templates that are made for each run, save those of
	// [AutoMigrate], which knows by itself: its own fingerprint counts in any
	// case, also where it makes the main database by default.
	Fingerprint string
	// GORM returns the gorm.Config for an Env's DB and for [AutoMigrate], a new
	// one each time. Defaults to GORM's own defaults.
	GORM func() *gorm.Config
	// Plugin changes the plugin's Config to the application's: limits, an
	// observer, a schema's range. Resolver, Engine and MainModels are set. It
	// is called for each Env. Defaults to nil, which changes nothing.
	Plugin func(*tenancy.Config)
}

func (c Config) validate() error {
	switch {
	case c.Backend == nil:
		return errors.New("tenancytest: Config.Backend is not set; set testsqlite.Backend{} or testpg.Backend{}")
	case c.Migrator == nil:
		return errors.New("tenancytest: Config.Migrator is not set; set the application's own, or tenancytest.AutoMigrate(models...)")
	}
	return nil
}

func (c Config) gorm() *gorm.Config {
	if c.GORM != nil {
		if config := c.GORM(); config != nil {
			return config
		}
	}
	return &gorm.Config{}
}

// main returns Main, or its default.
func (c Config) main() migrate.Migrator {
	if c.Main != nil {
		return c.Main
	}
	var models []any
	for _, m := range c.MainModels {
		if _, name := m.(string); !name {
			models = append(models, m)
		}
	}
	return AutoMigrate(models...)
}

// TB is what this package uses of [testing.TB].
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Name() string
}

// M is what this package uses of [testing.M].
type M interface {
	Run() int
}
