package tenancygormigrate_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"

	"github.com/go-gormigrate/gormigrate/v2"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	tenancygormigrate "github.com/gorm-tenancy/tenancy/contrib/gormigrate"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestUpBringsAnEmptyDatabaseToTheTarget(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygormigrate.Config{Dialector: e.dialector, Migrations: three()})
		db := e.open(t)
		target, _ := m.Target()
		require.EqualValues(t, 3, target)
		require.Zero(t, current(t, m, db))

		applied, err := m.Up(t.Context(), db, 2)
		require.NoError(t, err)
		require.Equal(t, []int64{1, 2}, versions(applied))
		require.Equal(t, "users", applied[0].Name)
		require.Positive(t, applied[0].Took)
		require.EqualValues(t, 2, current(t, m, db))
		require.Zero(t, count(t, db, "SELECT count(*) FROM users"))

		applied, err = m.Up(t.Context(), db, target)
		require.NoError(t, err)
		require.Equal(t, []int64{3}, versions(applied))
		require.EqualValues(t, 3, current(t, m, db))

		for _, to := range []int64{1, 3} { // nothing to do
			applied, err = m.Up(t.Context(), db, to)
			require.NoError(t, err)
			require.Empty(t, applied)
		}
		require.Equal(t, 1, count(t, db, "SELECT count(*) FROM users"))
	})
}

// An application adopts this with databases that gormigrate itself has
// migrated, and may go back.
func TestUpBesideGormigrateItself(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		db := e.open(t)
		g, err := gorm.Open(e.dialector(db))
		require.NoError(t, err)
		require.NoError(t, gormigrate.New(g, nil, three()[:2]).Migrate())

		m := newMigrator(t, tenancygormigrate.Config{
			Dialector: e.dialector, Migrations: three(), Options: *gormigrate.DefaultOptions,
		})
		require.EqualValues(t, 2, current(t, m, db))
		applied, err := m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, []int64{3}, versions(applied))

		strict := gormigrate.Options{ValidateUnknownMigrations: true}
		require.NoError(t, gormigrate.New(g, &strict, three()).Migrate())
		require.Equal(t, 1, count(t, db, "SELECT count(*) FROM users"))
	})
}

// Nothing of a migration that failed half-way may stay, and what came before it
// must: gormigrate's own transaction is around all of them.
func TestUpGoesOnAfterAFailure(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		list := three()
		list[2].Migrate = func(tx *gorm.DB) error {
			if err := tx.Exec("INSERT INTO users VALUES (7, 'b@example.com')").Error; err != nil {
				return err
			}
			return tx.Exec("INSERT INTO nowhere VALUES (1)").Error
		}
		db := e.open(t)
		m := newMigrator(t, tenancygormigrate.Config{Dialector: e.dialector, Migrations: list})
		applied, err := m.Up(t.Context(), db, 3)
		require.ErrorContains(t, err, "nowhere")
		if e.postgres { // tenancy.Engine's Classify looks for it
			var pg interface{ SQLState() string }
			require.ErrorAs(t, err, &pg)
			require.Equal(t, "42P01", pg.SQLState())
		}
		var failed *migrate.FailedError
		require.ErrorAs(t, err, &failed)
		require.EqualValues(t, 3, failed.Version)
		require.Equal(t, "first", failed.Name)
		require.Equal(t, []int64{1, 2}, versions(applied))
		require.EqualValues(t, 2, current(t, m, db))
		require.Zero(t, count(t, db, "SELECT count(*) FROM users"))

		exec(t, db, "CREATE TABLE nowhere (id integer)")
		applied, err = m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Equal(t, []int64{3}, versions(applied))
		require.Equal(t, 1, count(t, db, "SELECT count(*) FROM users"))
	})
}

func TestUpWithoutATransaction(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		create := "VACUUM" // which SQLite refuses in a transaction
		if e.postgres {
			create = "CREATE INDEX CONCURRENTLY users_id ON users (id)"
		}
		list := append(three(), execs("index", create))
		db := e.open(t)
		_, err := newMigrator(t, tenancygormigrate.Config{Dialector: e.dialector, Migrations: list}).Up(t.Context(), db, 4)
		require.Error(t, err, "or this test shows nothing")
		m := newMigrator(t, tenancygormigrate.Config{
			Dialector: e.dialector, Migrations: list, NoTransaction: []string{"index"},
		})
		require.EqualValues(t, 3, current(t, m, db))
		_, err = m.Up(t.Context(), db, 4)
		require.NoError(t, err)
		require.EqualValues(t, 4, current(t, m, db))
	})
}

func TestUpWhenTheCallerGivesUp(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		list := append(three(), &gormigrate.Migration{ID: "waits", Migrate: func(tx *gorm.DB) error {
			if err := tx.Exec("DELETE FROM users").Error; err != nil {
				return err
			}
			cancel()
			<-tx.Statement.Context.Done() // it is the caller's
			return tx.Statement.Context.Err()
		}})
		m := newMigrator(t, tenancygormigrate.Config{Dialector: e.dialector, Migrations: list})
		db := e.open(t)
		applied, err := m.Up(ctx, db, 4)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, applied, 3)
		require.EqualValues(t, 3, current(t, m, db))
		require.Equal(t, 1, count(t, db, "SELECT count(*) FROM users"))
	})
}

// One tenant's data must not end the process that migrates all of them.
func TestUpSurvivesAPanic(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		list := []*gormigrate.Migration{{ID: "panics", Migrate: func(*gorm.DB) error { panic("no such plan") }}}
		m := newMigrator(t, tenancygormigrate.Config{Dialector: e.dialector, Migrations: list})
		db := e.open(t)
		db.SetMaxOpenConns(1) // the transaction's connection must come back
		_, err := m.Up(t.Context(), db, 1)
		require.ErrorContains(t, err, "no such plan")
		require.Zero(t, current(t, m, db))
	})
}

func TestUpToAnUnknownVersion(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygormigrate.Config{Dialector: e.dialector, Migrations: three()})
		db := e.open(t)
		for _, to := range []int64{-1, 0, 4} {
			_, err := m.Up(t.Context(), db, to)
			require.ErrorContains(t, err, "the newest is 3")
		}
	})
}

func TestADatabaseThatCantBeReached(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygormigrate.Config{Dialector: e.dialector, Migrations: three()})
		db := e.open(t)
		require.NoError(t, db.Close())
		_, err := m.Current(t.Context(), db)
		require.Error(t, err, "it must not be taken for an empty one")
		_, err = m.Up(t.Context(), db, 3)
		require.Error(t, err)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = m.Current(ctx, e.open(t))
		require.True(t, errors.Is(err, context.Canceled), err)
	})
}

// For the race detector: the list, and the Migrator, are shared by tenants.
func TestManyDatabasesAtOnce(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygormigrate.Config{Dialector: e.dialector, Migrations: three()})
		dbs := make([]*sql.DB, 5)
		for i := range dbs {
			dbs[i] = e.open(t)
		}
		errs := make([]error, len(dbs))
		var wg sync.WaitGroup
		for i, db := range dbs {
			wg.Go(func() {
				if _, errs[i] = m.Current(t.Context(), db); errs[i] == nil {
					_, errs[i] = m.Up(t.Context(), db, 3)
				}
			})
		}
		wg.Wait()
		for i, db := range dbs {
			require.NoError(t, errs[i])
			require.Equal(t, 1, count(t, db, "SELECT count(*) FROM users"))
			require.EqualValues(t, 3, current(t, m, db))
		}
	})
}

type Invoice struct{ ID uint }

func TestOptionsAndConfiguration(t *testing.T) {
	each(t, func(t *testing.T, e engine) {
		m := newMigrator(t, tenancygormigrate.Config{
			Dialector:  e.dialector,
			Migrations: []*gormigrate.Migration{{ID: "1", Migrate: func(tx *gorm.DB) error { return tx.AutoMigrate(&Invoice{}) }}},
			Options:    gormigrate.Options{TableName: "app_migrations", IDColumnName: "name", IDColumnSize: 10},
			GORM: func() *gorm.Config {
				// PrepareStmt would leave a goroutine behind, which goleak sees.
				return &gorm.Config{PrepareStmt: true, NamingStrategy: schema.NamingStrategy{TablePrefix: "app_"}}
			},
		})
		db := e.open(t)
		_, err := m.Up(t.Context(), db, 1)
		require.NoError(t, err)
		require.EqualValues(t, 1, current(t, m, db))
		require.Equal(t, 1, count(t, db, "SELECT count(*) FROM app_migrations WHERE name = '1'"))
		require.Zero(t, count(t, db, "SELECT count(*) FROM app_invoices"))
	})
}
