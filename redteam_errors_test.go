package tenancy_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// A sub-query's error is dropped by gorm, and "NOT IN ()" is true for all rows.
func TestRedTeam18SubqueryErrorsAreSeen(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		failed := e.in(idA).Model(&Tag{}).Select("id")
		_ = failed.AddError(errBoom)
		for name, sub := range map[string]struct {
			db   *gorm.DB
			want error
		}{
			"failed":  {failed, errBoom},
			"foreign": {e.in(idB).Model(&Tag{}).Select("id"), tenancy.ErrTenantMismatch},
			"main":    {e.in(idA).Model(&Plan{}).Select("id"), tenancy.ErrCrossDatabase},
		} {
			e.refused(sub.want, func() error {
				return e.in(idA).Where("id NOT IN (?)", sub.db).Delete(&Order{}).Error
			})
			e.refused(sub.want, func() error {
				return e.in(idA).Model(&Order{}).Where("id NOT IN (?)", sub.db).Update("title", "x").Error
			})
			e.refused(sub.want, func() error {
				return e.in(idA).Where("id IN (?)", sub.db).Find(&[]Order{}).Error
			})
			e.refused(sub.want, func() error {
				return e.in(idA).Table("(?) AS s", sub.db).Count(new(int64)).Error
			})
			e.refused(sub.want, func() error {
				return e.in(idA).Where(e.in(idA).Where("id NOT IN (?)", sub.db)).Delete(&Order{}).Error
			})
			_ = name
		}
		// One without a tenant is the outer statement's, and is not empty.
		for _, db := range []*gorm.DB{e.db, e.in(idA)} {
			e.unchanged(func() {
				require.NoError(t, e.in(idA).Unscoped().Where("id NOT IN (?)", db.Model(&Order{}).Select("id")).Delete(&Order{}).Error)
			})
		}
	})
}

// gorm's dialects drop the error of SAVEPOINT and ROLLBACK TO.
func TestRedTeam19SavepointErrors(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		expired, cancel := context.WithCancel(e.ctx(idA))
		cancel()
		for _, ctx := range []context.Context{e.ctx(idB), context.Background(), expired} {
			tx := e.in(idA).Begin()
			e.unchanged(func() {
				require.NoError(t, tx.WithContext(ctx).SavePoint("sp").Error)
				require.NoError(t, tx.Create(&Tag{Name: "rolled back"}).Error)
				require.NoError(t, tx.WithContext(ctx).RollbackTo("sp").Error)
				require.NoError(t, tx.Commit().Error)
			})
		}
		tx := e.in(idA).Begin()
		e.unchanged(func() {
			require.NoError(t, tx.Create(&Tag{Name: "rolled back"}).Error)
			_ = tx.RollbackTo("unknown")
			require.Error(t, tx.Commit().Error)
		})
		// Nothing else passes as a savepoint.
		tx = e.in(idA).Begin()
		err := tx.WithContext(e.ctx(idB)).Exec("SAVEPOINT sp; DELETE FROM tags").Error
		require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
		require.NoError(t, tx.Rollback().Error)
	})
}

// A scope that returns a session: gorm would begin a default transaction and
// never end it.
func TestRedTeam20ScopeReturnsASession(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		for name, scope := range map[string]func(*gorm.DB) *gorm.DB{
			"context": func(db *gorm.DB) *gorm.DB { return db.WithContext(e.ctx(idA)) },
			"session": func(db *gorm.DB) *gorm.DB { return db.Session(&gorm.Session{}) },
			"debug":   func(db *gorm.DB) *gorm.DB { return db.Debug() },
		} {
			for verb, write := range writesAndReads {
				in := e.in(idA).Scopes(scope)
				if verb == "create" || verb == "update" || verb == "delete" {
					e.refused(tenancy.ErrTenantMismatch, func() error { return write(in) })
				}
			}
			require.Equal(t, ordersOf(idA), titles(t, e.in(idA).Scopes(scope)), name)
			// gorm drops the error here, but no row is half written.
			e.unchanged(func() {
				_ = e.in(idA).Scopes(scope).CreateInBatches([]Tag{{Name: "1"}, {Name: "2"}}, 1)
			}, idA)
		}
		require.NoError(t, e.in(idA).Scopes(tenancy.WithTenant(idB)).Create(&Tag{Name: "x"}).Error)
		require.Equal(t, []string{"tag of bravo", "x"}, e.dump(idB)["tags"])
		require.NoError(t, e.in(idA).Create(&Tag{Name: "no lock is left"}).Error)
	})
}

func TestRedTeam24ErrorsUnwrap(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		tx := e.db.Begin()
		require.ErrorIs(t, tx.Error, tenancy.ErrNoTenant)
		require.ErrorIs(t, tx.Commit().Error, tenancy.ErrNoTenant)
		tx = e.db.Begin()
		require.ErrorIs(t, tx.Rollback().Error, tenancy.ErrNoTenant)
		// gorm's PreparedStmtDB drops the transaction that carries the reason.
		tx = e.db.Session(&gorm.Session{PrepareStmt: true}).Begin()
		require.ErrorIs(t, tx.Error, tenancy.ErrNoTenant)
		require.Error(t, tx.Commit().Error)
		for name, run := range writesAndReads {
			require.ErrorIs(t, run(e.db), tenancy.ErrNoTenant, name)
			var detail *tenancy.Error
			require.ErrorAs(t, run(e.db), &detail, name)
		}

		// The first error stays the one that is seen.
		ctx, cancel := context.WithCancel(e.ctx(idA))
		e.unchanged(func() {
			err := e.db.WithContext(ctx).Create(&hooked{Name: "x", hook: func(*gorm.DB) error { cancel(); return errBoom }}).Error
			require.ErrorIs(t, err, errBoom)
			require.NotErrorIs(t, err, sql.ErrTxDone)
		})

		// An ended context does not hide the refusal, also not in a Row.
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		row := e.db.WithContext(ended).Raw("SELECT 1").Row()
		require.NotNil(t, row)
		require.ErrorIs(t, row.Err(), tenancy.ErrNoTenant)
		row = e.db.Statement.ConnPool.QueryRowContext(ended, "SELECT 1")
		require.ErrorIs(t, row.Scan(new(int)), tenancy.ErrNoTenant)
		bad := e.in(idA)
		_ = bad.AddError(errBoom)
		require.ErrorIs(t, bad.Raw("SELECT 1").Row().Scan(new(int)), errBoom)
	})
}

// A plugin whose callbacks conflict leaves a processor without any.
func TestRedTeam25ProcessorWithoutCallbacks(t *testing.T) {
	for _, name := range []string{"tenancy:check", "gorm:create"} { // 25, 41b
		e := openSQLite(t)
		require.NoError(t, tenancy.Verify(e.db))
		err := e.db.Callback().Create().Before("gorm:begin_transaction").After(name).Register("conflict", func(*gorm.DB) {})
		require.Error(t, err)
		require.Error(t, tenancy.Verify(e.db))
		e.unchanged(func() { _ = e.in(idA).Create(&Tag{Name: "x"}) })
	}
}

// Some of gorm's calls have no error result: look at db.Error.
func TestRedTeam27AssociationCount(t *testing.T) {
	e := openSQLite(t)
	association := e.db.Model(&Customer{ID: 1}).Association("Orders")
	require.Zero(t, association.Count())
	require.ErrorIs(t, association.Error, tenancy.ErrNoTenant)
	e.refused(tenancy.ErrNoTenant, func() error { return e.db.Model(&Customer{ID: 1}).Association("Orders").Clear() })
	require.EqualValues(t, 2, e.in(idA).Model(&Customer{ID: 1}).Association("Orders").Count())
}

// The Migrator's questions answer false where they failed.
func TestRedTeam28MigratorWithoutErrors(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		e.unchanged(func() {
			m := e.db.Migrator()
			require.False(t, m.HasTable(&Order{}))
			require.False(t, m.HasColumn(&Order{}, "Title"))
			for _, err := range []error{
				m.AutoMigrate(&Order{}), m.CreateTable(&Order{}), m.DropTable(&Order{}),
				func() error { _, err := m.GetTables(); return err }(),
				func() error { _, err := m.ColumnTypes(&Order{}); return err }(),
			} {
				require.ErrorIs(t, err, tenancy.ErrNoTenant)
			}
			tx := e.in(idA).Begin()
			require.False(t, tx.WithContext(e.ctx(idB)).Migrator().HasTable(&Order{}))
			require.ErrorIs(t, tx.Commit().Error, tenancy.ErrTenantMismatch)
		})
	})
}

func TestRedTeam30RefusalNobodyLookedAt(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		for _, ctx := range []context.Context{e.ctx(idB), context.Background()} {
			for name, run := range writesAndReads {
				e.unchanged(func() {
					err := e.in(idA).Transaction(func(tx *gorm.DB) error {
						require.NoError(t, tx.Create(&Tag{Name: "half"}).Error)
						_ = run(tx.WithContext(ctx))
						return nil
					})
					require.ErrorIs(t, err, tenancy.ErrTenantMismatch, name)
				})
			}
		}
	})
}

func TestRedTeam35DryRun(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for _, skip := range []bool{false, true} {
			e := open(withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = skip }))
			e.unchanged(func() {
				for _, db := range []*gorm.DB{e.db, e.in(idA), e.main(), tenancy.For(e.db, idA)} {
					dry := db.Session(&gorm.Session{DryRun: true})
					e.calls.reset()
					for _, res := range []*gorm.DB{
						dry.Create(&Tag{Name: "x"}), dry.Save(&Tag{ID: 1, Name: "x"}), dry.Find(&[]Tag{}),
						dry.Model(&Tag{}).Where("id = 1").Update("name", "x"), dry.Where("id = 1").Delete(&Tag{}),
						dry.Exec("DELETE FROM tags"), dry.Create(&Plan{Name: "x"}),
					} {
						require.NoError(t, res.Error)
						require.NotEmpty(t, res.Statement.SQL.String())
					}
					require.NotEmpty(t, db.ToSQL(func(tx *gorm.DB) *gorm.DB { return tx.Create(&Tag{Name: "x"}) }))
					require.Empty(t, e.calls.list())
				}
			})
		}
	})
}

// On the root db itself, gorm keeps the error of Commit for everybody: work on
// what WithContext returns.
func TestRedTeam49CommitOnTheRoot(t *testing.T) {
	e := openSQLite(t)
	for _, end := range []func(*gorm.DB) *gorm.DB{
		(*gorm.DB).Commit, (*gorm.DB).Rollback,
		func(db *gorm.DB) *gorm.DB { return db.SavePoint("x") },
		func(db *gorm.DB) *gorm.DB { return db.RollbackTo("x") },
	} {
		_ = end(e.in(idA))
		require.NoError(t, e.db.Error)
		require.Equal(t, ordersOf(idB), titles(t, e.in(idB)))
	}
	require.Error(t, e.db.Commit().Error)
	e.unchanged(func() { require.Error(t, e.in(idA).Create(&Tag{Name: "x"}).Error) })
}

func TestRedTeam51DriverErrorsAsTheyAre(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withGorm(func(c *gorm.Config) { c.TranslateError = true }))
		duplicate := func(db *gorm.DB) error { return db.Create(&Tag{ID: 1}).Error }
		require.ErrorIs(t, duplicate(e.in(idA)), gorm.ErrDuplicatedKey)
		require.ErrorIs(t, duplicate(tenancy.For(e.db, idA)), gorm.ErrDuplicatedKey)
		require.ErrorIs(t, e.in(idA).Transaction(duplicate), gorm.ErrDuplicatedKey)
		require.ErrorIs(t, duplicate(e.in(idA).Session(&gorm.Session{SkipDefaultTransaction: true})), gorm.ErrDuplicatedKey)
	})
}

// What the server itself keeps apart.
func TestRedTeam60PostgreSQL(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		if e := open(); e.name == "postgres" {
			tx := e.in(idA).Begin()
			require.Error(t, tx.Exec("SELECT nothing FROM nowhere").Error)
			e.unchanged(func() { require.Error(t, tx.Commit().Error) })
			other := e.strings(idB, "SELECT current_database()")[0]
			require.ErrorContains(t, e.in(idA).Exec(`SELECT * FROM "`+other+`".public.tags`).Error, "cross-database")
			require.ErrorContains(t, e.db.WithContext(tenant.Main(t.Context())).Exec(`DELETE FROM "`+other+`".public.tags`).Error, "cross-database")
		}
	})
}
