package tenancy_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

func TestRedTeam01ConnectionAndDB(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		pool, err := e.db.DB()
		require.NoError(t, err)
		var name string
		require.NoError(t, pool.QueryRow("SELECT name FROM plans").Scan(&name))
		require.Equal(t, "plan of main", name)

		empty := func(tx *gorm.DB) error { return tx.Where("1 = 1").Delete(&Order{}).Error }
		e.calls.reset()
		e.unchanged(func() {
			require.ErrorIs(t, e.in(idA).Connection(empty), tenancy.ErrTenantMismatch)
			require.ErrorIs(t, e.db.Connection(empty), tenancy.ErrNoTenant)
		})
		require.Empty(t, e.sent())

		require.NoError(t, e.in(idA).Transaction(func(tx *gorm.DB) error {
			_, err := tx.DB()
			require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
			require.Error(t, tx.Session(&gorm.Session{}).WithContext(e.ctx(idB)).Connection(empty))
			return nil
		}))
		// gorm's PreparedStmtTX asks the pool that began it, which is the
		// root's: never a tenant's.
		require.NoError(t, e.in(idA).Session(&gorm.Session{PrepareStmt: true}).Transaction(func(tx *gorm.DB) error {
			if got, err := tx.DB(); err == nil {
				require.Same(t, pool, got)
			}
			return nil
		}))
		_, err = tenancy.For(e.db, idA).DB()
		require.ErrorIs(t, err, tenancy.ErrTenantMismatch)

		// The way that leads to the tenant.
		require.NoError(t, tenancy.Conn(e.ctx(idA), e.db, func(conn *sql.Conn) error {
			return conn.QueryRowContext(t.Context(), "SELECT title FROM orders WHERE id = 1").Scan(&name)
		}))
		require.Equal(t, "order 1 of acme", name)
	})
}

// MySQL's Migrator drops tables inside of Connection.
func TestRedTeam02DropTableInConnection(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		e.unchanged(func() {
			err := e.in(idA).Connection(func(tx *gorm.DB) error {
				return tx.Exec("DROP TABLE IF EXISTS cards").Error
			})
			require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
			require.ErrorContains(t, err, "tenancy.Conn")
		})
		require.NoError(t, e.in(idA).Migrator().DropTable(&Card{}))
		require.False(t, e.in(idA).Migrator().HasTable(&Card{}))
		require.True(t, e.in(idB).Migrator().HasTable(&Card{}))
		require.Equal(t, []string{"card of main"}, e.dump(mainName)["cards"])
	})
}

// A session taken before Use holds the main database's pool.
func TestRedTeam03SessionsBeforeUse(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		var session, begun *gorm.DB
		e := open(withBefore(func(db *gorm.DB) {
			session = db.WithContext(context.Background())
			begun = db.Begin()
		}))
		require.ErrorIs(t, begun.WithContext(e.ctx(idA)).Create(&Tag{Name: "x"}).Error, tenancy.ErrTenantMismatch)
		require.ErrorIs(t, begun.Create(&Tag{Name: "x"}).Error, tenancy.ErrNoTenant)
		_ = begun.Rollback()

		in := session.WithContext(e.ctx(idA))
		e.unchanged(func() {
			require.Equal(t, ordersOf(idA), titles(t, in))
			require.NoError(t, in.Create(&Tag{Name: "x"}).Error)
			require.NoError(t, in.Create(&Tag{Name: "y"}).Error)
			require.NoError(t, in.Exec("UPDATE tags SET name = 'z' WHERE name = 'y'").Error)
			err := in.Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "main's"}).Error })
			require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
		}, idA)
		require.Equal(t, []string{"tag of acme", "x", "z"}, e.dump(idA)["tags"])
		e.refused(tenancy.ErrNoTenant, func() error { return session.Create(&Tag{Name: "x"}).Error })
	})
}

func TestRedTeam03UseOnADerivedSession(t *testing.T) {
	e := openSQLite(t)
	pool, err := e.db.DB()
	require.NoError(t, err)
	root, err := gorm.Open(&sqlite.Dialector{Conn: pool}, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	plugin := tenancy.New(tenancy.Config{Resolver: e.static})
	require.NoError(t, root.Session(&gorm.Session{}).Use(plugin))
	t.Cleanup(func() { require.NoError(t, plugin.Close(context.Background())) })
	require.Error(t, tenancy.Verify(root))

	in := root.WithContext(e.ctx(idA))
	e.unchanged(func() {
		require.Equal(t, ordersOf(idA), titles(t, in))
		require.NoError(t, in.Create(&Tag{Name: "x"}).Error)
		require.NoError(t, in.Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "y"}).Error }))
	}, idA)
	require.Equal(t, []string{"tag of acme", "x", "y"}, e.dump(idA)["tags"])
	e.refused(tenancy.ErrNoTenant, func() error { return root.Create(&Tag{}).Error })
}

// wrapper is a pool of another plugin: tracing, sharding.
type wrapper struct{ gorm.ConnPool }

func TestRedTeam07ForeignPoolsInAStatement(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		tx, err := e.raw[idB].Begin()
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
		conn, err := e.raw[idB].Conn(t.Context())
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		on := func(ctx context.Context, pool gorm.ConnPool) *gorm.DB {
			db := e.db.Session(&gorm.Session{Context: ctx})
			db.Statement.ConnPool = pool
			return db
		}
		for _, pool := range []gorm.ConnPool{
			tx, conn, (*sql.Tx)(nil), (*sql.Conn)(nil), &wrapper{e.raw[idB]}, wrapper{e.raw[idB]},
			nil, &gorm.PreparedStmtTX{Tx: tx}, gorm.NewPreparedStmtDB(wrapper{e.raw[idB]}, 1, 0),
		} {
			for name, run := range writesAndReads {
				e.calls.reset()
				require.ErrorIs(t, run(on(e.ctx(idA), pool)), tenancy.ErrTenantMismatch, "%T %s", pool, name)
				require.ErrorIs(t, run(on(t.Context(), pool)), tenancy.ErrNoTenant, "%T %s", pool, name)
				require.Empty(t, e.calls.list(), "%T %s", pool, name)
			}
		}
		require.NoError(t, tx.Rollback())
		// A whole pool is not used either: the statement goes to its tenant.
		require.Equal(t, ordersOf(idA), titles(t, on(e.ctx(idA), e.raw[idB])))

		// What is proved to be the tenant's may be used.
		require.NoError(t, tenancy.Conn(e.ctx(idA), e.db, func(conn *sql.Conn) error {
			require.Equal(t, ordersOf(idA), titles(t, on(e.ctx(idA), conn)))
			require.ErrorIs(t, on(e.ctx(idB), conn).Find(&[]Order{}).Error, tenancy.ErrTenantMismatch)
			return nil
		}))
	})
}

func TestRedTeam11IDsReachNoResolver(t *testing.T) {
	asked := 0
	e := openSQLite(t, withConfig(func(c *tenancy.Config) {
		c.Resolver = tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) {
			asked++
			return tenancy.Database{}, tenancy.ErrTenantNotFound
		})
	}))
	for _, id := range []string{"", "./main", "../main", "main.db", "a b", "_a", "-a", "a\x00", "a;b", "a/b", "é", strings.Repeat("a", 64)} {
		for _, run := range writesAndReads {
			e.refused(tenancy.ErrInvalidTenant, func() error { return run(e.in(id)) })
			e.refused(tenancy.ErrInvalidTenant, func() error { return run(tenancy.For(e.db, id)) })
		}
		e.refused(tenancy.ErrInvalidTenant, func() error { return e.in(id).Begin().Error })
	}
	require.Zero(t, asked)
	e.refused(tenancy.ErrTenantNotFound, func() error { return e.in("unknown").Find(&[]Tag{}).Error })
}

func TestRedTeam12OneDatabaseForTwoTenants(t *testing.T) {
	e := openSQLite(t)
	pool, err := e.db.DB()
	require.NoError(t, err)
	use := func(engine tenancy.Engine, static tenancy.Static) error {
		db, err := gorm.Open(&sqlite.Dialector{Conn: pool}, &gorm.Config{Logger: logger.Discard})
		require.NoError(t, err)
		return db.Use(tenancy.New(tenancy.Config{Resolver: static, Engine: engine}))
	}
	engine := tenancysqlite.Engine{}
	dsn := tenancy.Database{DSN: tenancysqlite.DSN("one.db")}
	require.ErrorContains(t, use(engine, tenancy.Static{"a": dsn, "b": dsn}), "same database")
	require.ErrorContains(t, use(engine, tenancy.Static{"a": e.static[idA], "b": e.static[idA]}), "same database")
	require.ErrorContains(t, use(otherDialect{engine}, e.static), "must be of one kind")
}

func TestRedTeam12OneDatabaseResolvedForTwoTenants(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		var e *env
		e = open(withConfig(func(c *tenancy.Config) {
			c.Resolver = tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) {
				return e.static[idA], nil
			})
		}))
		require.Equal(t, ordersOf(idA), titles(t, e.in("first")))
		e.unchanged(func() { require.Error(t, e.in("second").Create(&Tag{Name: "x"}).Error) })
	})
}

type otherDialect struct{ tenancysqlite.Engine }

func (otherDialect) Dialect() string { return "other" }

func TestRedTeam13NothingStaysInAReusedStatement(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		e.unchanged(func() {
			q := e.in(idA).Table("plans")
			var n int64
			require.NoError(t, q.Where("name = 'plan of main'").Count(&n).Error)
			require.EqualValues(t, 1, n)
			delete(q.Statement.Clauses, "WHERE")
			var names []string
			require.NoError(t, q.Table("orders").Order("id").Pluck("title", &names).Error)
			require.Equal(t, ordersOf(idA), names)

			res := e.in(idA).Find(&[]Plan{})
			require.NoError(t, res.Error)
			tx := res.Begin()
			require.NoError(t, tx.Error)
			require.NoError(t, tx.Session(&gorm.Session{NewDB: true}).Create(&Tag{Name: "x"}).Error)
			require.NoError(t, tx.Commit().Error)

			res = e.in(idA).Create(&Plan{Name: "new"})
			require.NoError(t, res.Error)
			require.NoError(t, res.Session(&gorm.Session{NewDB: true}).Create(&Tag{Name: "y"}).Error)
		}, idA, mainName)
		require.Equal(t, []string{"tag of acme", "x", "y"}, e.dump(idA)["tags"])
		require.Equal(t, []string{"tag of main"}, e.dump(mainName)["tags"])
		require.Equal(t, []string{"plan of acme"}, e.dump(idA)["plans"])
	})
}

func TestRedTeam23PreparedStatements(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for _, e := range []*env{open(), open(withGorm(func(c *gorm.Config) { c.PrepareStmt = true }))} {
			for range 2 {
				for _, id := range []string{idA, idB} {
					in := e.in(id).Session(&gorm.Session{PrepareStmt: true})
					require.Equal(t, ordersOf(id), titles(t, e.in(id)))
					require.Equal(t, ordersOf(id), titles(t, in))
					require.Equal(t, ordersOf(id), titles(t, tenancy.For(in, id)))
					require.NoError(t, in.Transaction(func(tx *gorm.DB) error {
						require.Equal(t, ordersOf(id), titles(t, tx))
						return nil
					}))
				}
			}
			for _, db := range []*gorm.DB{e.in(idA), tenancy.For(e.db, idA), e.in(idA).Session(&gorm.Session{PrepareStmt: true})} {
				e.refused(tenancy.ErrTenantMismatch, func() error {
					_, err := db.Statement.ConnPool.PrepareContext(e.ctx(idA), "SELECT 1")
					return err
				})
				if _, cached := db.Statement.ConnPool.(*gorm.PreparedStmtDB); cached {
					e.refused(tenancy.ErrTenantMismatch, func() error {
						_, err := db.Statement.ConnPool.QueryContext(e.ctx(idA), "SELECT 1")
						return err
					})
				}
			}
		}
	})
}

// In a Connection block, gorm's first default transaction resets the pool.
func TestRedTeam36SecondWriteInConnection(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		e.unchanged(func() {
			_ = e.in(idA).Connection(func(tx *gorm.DB) error {
				require.Error(t, tx.Create(&Tag{Name: "1"}).Error)
				require.Error(t, tx.Create(&Tag{Name: "2"}).Error)
				return nil
			})
		})
		e.unchanged(func() {
			require.NoError(t, e.main().Connection(func(tx *gorm.DB) error {
				require.NoError(t, tx.Create(&Tag{Name: "1"}).Error)
				return tx.Create(&Tag{Name: "2"}).Error
			}))
		}, mainName)
		require.Equal(t, []string{"tag of main", "1", "2"}, e.dump(mainName)["tags"])
	})
}

func TestRedTeam45MovedTenant(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		var e *env
		at := idA
		e = open(withConfig(func(c *tenancy.Config) {
			c.Resolver = tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) {
				return e.static[at], nil
			})
		}))
		db := tenancy.For(e.db, "moving") // bound to the id, never to a pool
		require.Equal(t, ordersOf(idA), titles(t, db))
		tx := db.Begin()
		require.NoError(t, tx.Create(&Tag{Name: "old"}).Error)
		at = idB
		require.True(t, e.plugin.Evict("moving"))
		require.Equal(t, ordersOf(idB), titles(t, db))
		require.NoError(t, db.Create(&Tag{Name: "new"}).Error)
		require.NoError(t, tx.Commit().Error) // work in flight ends where it began
		require.Equal(t, []string{"tag of acme", "old"}, e.dump(idA)["tags"])
		require.Equal(t, []string{"tag of bravo", "new"}, e.dump(idB)["tags"])
	})
}

// What gorm must see in our transactions and errors to keep to them.
func TestRedTeam50ShapesOfTransactions(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		for name, begin := range map[string]*gorm.DB{
			"root": e.in(idA), "bound": tenancy.For(e.db, idA), "main": e.main(),
		} {
			tx := begin.Begin()
			require.NoError(t, tx.Error, name)
			pool := tx.Statement.ConnPool
			require.Implements(t, (*gorm.Tx)(nil), pool)
			require.IsType(t, (*tenancy.Tx)(nil), pool)
			_, begins := pool.(gorm.TxBeginner)
			require.False(t, begins)
			_, begins = pool.(gorm.ConnPoolBeginner)
			require.False(t, begins)
			// A session in it stays in it.
			e.unchanged(func() {
				require.NoError(t, tx.Session(&gorm.Session{PrepareStmt: true}).Create(&Tag{Name: "x"}).Error)
				require.NoError(t, tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "y"}).Error }))
				require.NoError(t, tx.Rollback().Error)
			})
		}
		for _, db := range []*gorm.DB{e.db, e.in(""), e.in("unknown"), tenancy.For(e.db, idA).WithContext(e.ctx(idB))} {
			tx := db.Begin()
			require.Error(t, tx.Error)
			require.NotErrorIs(t, tx.Error, gorm.ErrInvalidTransaction)
			require.Error(t, tx.Create(&Tag{Name: "x"}).Error)
			require.NotPanics(t, func() { require.Error(t, tx.Commit().Error) })
		}
	})
}

func TestRedTeam52PoolReplacedAfterUse(t *testing.T) {
	e := openSQLite(t)
	for _, pool := range []gorm.ConnPool{&wrapper{e.raw[idB]}, e.raw[idB]} {
		e.db.Config.ConnPool = pool
		e.db.Statement.ConnPool = pool
		require.Error(t, tenancy.Verify(e.db))
		e.unchanged(func() {
			for _, run := range writesAndReads {
				require.ErrorIs(t, run(e.db), tenancy.ErrNoTenant)
				_ = run(e.in(idA))
			}
			tx := e.in(idA).Begin()
			require.Error(t, tx.Create(&Tag{Name: "x"}).Error)
			_ = tx.Rollback()
			res := e.in(idA).Create(&Tag{Name: "x"})
			_ = res.Session(&gorm.Session{NewDB: true}).Create(&Tag{Name: "y"})
		}, idA)
	}
	require.NoError(t, tenancy.Main(e.in(idA)).Find(&[]Plan{}).Error)
}
