package tenancygormigrate_test

import (
	"context"
	"testing"

	"github.com/go-gormigrate/gormigrate/v2"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	tenancygormigrate "github.com/gorm-tenancy/tenancy/contrib/gormigrate"
	"github.com/gorm-tenancy/tenancy/internal/migratortest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestSuite(t *testing.T) {
	migratortest.Run(t, func(t *testing.T, e migratortest.Engine, steps ...migratortest.Step) migrate.Migrator {
		c := tenancygormigrate.Config{Dialector: dialector(e)}
		for _, s := range steps {
			do := s.Do
			if do == nil {
				do = func(_ context.Context, exec func(string) error) error {
					for _, query := range s.SQL {
						if err := exec(query); err != nil {
							return err
						}
					}
					return nil
				}
			}
			c.Migrations = append(c.Migrations, &gormigrate.Migration{ID: s.Name, Migrate: func(tx *gorm.DB) error {
				return do(tx.Statement.Context, func(query string) error { return tx.Exec(query).Error })
			}})
			if s.NoTransaction {
				c.NoTransaction = append(c.NoTransaction, s.Name)
			}
		}
		return newMigrator(t, c)
	})
}

// An application adopts this with databases that gormigrate itself has
// migrated, and may go back.
func TestUpBesideGormigrateItself(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		db := e.Open(t)
		g, err := gorm.Open(dialector(e)(db))
		require.NoError(t, err)
		require.NoError(t, gormigrate.New(g, nil, three()[:2]).Migrate())

		m := newMigrator(t, tenancygormigrate.Config{
			Dialector: dialector(e), Migrations: three(), Options: *gormigrate.DefaultOptions,
		})
		require.EqualValues(t, 2, migratortest.Current(t, m, db))
		applied, err := m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, []int64{3}, migratortest.Versions(applied))

		strict := gormigrate.Options{ValidateUnknownMigrations: true}
		require.NoError(t, gormigrate.New(g, &strict, three()).Migrate())
		require.Equal(t, 1, migratortest.Count(t, db, "SELECT count(*) FROM users"))
	})
}

type Invoice struct{ ID uint }

func TestOptionsAndConfiguration(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		m := newMigrator(t, tenancygormigrate.Config{
			Dialector:  dialector(e),
			Migrations: []*gormigrate.Migration{{ID: "1", Migrate: func(tx *gorm.DB) error { return tx.AutoMigrate(&Invoice{}) }}},
			Options:    gormigrate.Options{TableName: "app_migrations", IDColumnName: "name", IDColumnSize: 10},
			GORM: func() *gorm.Config {
				// PrepareStmt would leave a goroutine behind, which goleak sees.
				return &gorm.Config{PrepareStmt: true, NamingStrategy: schema.NamingStrategy{TablePrefix: "app_"}}
			},
		})
		db := e.Open(t)
		_, err := m.Up(t.Context(), db, 1)
		require.NoError(t, err)
		require.EqualValues(t, 1, migratortest.Current(t, m, db))
		require.Equal(t, 1, migratortest.Count(t, db, "SELECT count(*) FROM app_migrations WHERE name = '1'"))
		require.Zero(t, migratortest.Count(t, db, "SELECT count(*) FROM app_invoices"))
	})
}
