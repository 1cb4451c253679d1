package tenancy_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy"
)

// withMainCustomers makes Customer a main model too: one with tenants' rows as
// its children.
func withMainCustomers() envOption {
	return withConfig(func(c *tenancy.Config) { c.MainModels = []any{&Plan{}, &Customer{}} })
}

func TestRedTeam14AssociationsAcrossDatabases(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withMainCustomers())
		for name, c := range map[string]*Customer{
			"has many":    {Name: "x", Orders: []Order{{Title: "x"}}},
			"has one":     {Name: "x", Card: Card{Number: "x"}},
			"many2many":   {Name: "x", Tags: []Tag{{Name: "x"}}},
			"polymorphic": {Name: "x", Notes: []Note{{Text: "x"}}},
			"belongs to":  {Name: "x", Plan: &Plan{Name: "x"}},
		} {
			if name == "belongs to" { // both in main
				continue
			}
			e.unchanged(func() { require.Error(t, e.in(idA).Create(c).Error, name) })
		}
		e.unchanged(func() {
			require.NoError(t, e.in(idA).Omit(clause.Associations).Create(&Customer{Name: "alone", Tags: []Tag{{Name: "x"}}}).Error)
			require.NoError(t, e.in(idA).Create(&Customer{Name: "both", Plan: &Plan{Name: "new plan"}}).Error)
		}, mainName)
		require.Equal(t, []string{"customer of main", "alone", "both"}, e.dump(mainName)["customers"])

		// A tenant's row does not bring a new main row along.
		e = open()
		e.unchanged(func() {
			require.ErrorIs(t, e.in(idA).Create(&Customer{Name: "x", Plan: &Plan{Name: "x"}}).Error, tenancy.ErrMainInTenantTx)
			no := e.in(idA).Session(&gorm.Session{SkipDefaultTransaction: true})
			require.ErrorIs(t, no.Create(&Customer{Name: "x", Plan: &Plan{Name: "x"}}).Error, tenancy.ErrMainInTenantTx)
		})
		e.unchanged(func() {
			require.NoError(t, e.in(idA).Omit("Plan").Create(&Customer{Name: "y", Plan: &Plan{Name: "y"}}).Error)
			require.NoError(t, e.in(idA).Create(&Customer{Name: "z", Plan: &Plan{ID: 1}}).Error)
		}, idA)
		require.Equal(t, []string{"plan of acme"}, e.dump(idA)["plans"])
		require.Equal(t, []string{"1", "", "1"}, e.dump(idA)["customer_plan"])
	})
}

// 14b.
func TestRedTeam14PreloadsAcrossDatabases(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withMainCustomers())
		for _, in := range []*gorm.DB{e.in(idA), tenancy.For(e.db, idA)} {
			var c Customer
			require.NoError(t, in.Preload("Plan").Preload("Orders.Customer.Plan").Preload("Tags").Preload("Notes").Preload("Card").First(&c).Error)
			require.Equal(t, "customer of main", c.Name)
			require.Equal(t, "plan of main", c.Plan.Name)
			require.Equal(t, "order 1 of acme", c.Orders[0].Title)
			require.Equal(t, "customer of main", c.Orders[0].Customer.Name)
			require.Equal(t, "plan of main", c.Orders[0].Customer.Plan.Name)
			require.Equal(t, "tag of acme", c.Tags[0].Name)
			require.Equal(t, "note of acme", c.Notes[0].Text)
			require.Equal(t, "card of acme", c.Card.Number)
		}
		require.ErrorIs(t, e.db.Preload("Orders").First(&Customer{}).Error, tenancy.ErrNoTenant)
	})
}

func TestRedTeam15MainAndTenantInOneTransaction(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		for name, write := range map[string]func(*gorm.DB) error{
			"create": func(tx *gorm.DB) error { return tx.Create(&Plan{Name: "x"}).Error },
			"update": func(tx *gorm.DB) error { return tx.Model(&Plan{}).Where("id = 1").Update("name", "x").Error },
			"delete": func(tx *gorm.DB) error { return tx.Delete(&Plan{}, 1).Error },
			"lock":   func(tx *gorm.DB) error { return tx.Clauses(clause.Locking{Strength: "UPDATE"}).First(&Plan{}).Error },
		} {
			e.unchanged(func() {
				require.ErrorIs(t, e.in(idA).Transaction(func(tx *gorm.DB) error {
					_ = write(tx)
					return nil
				}), tenancy.ErrMainInTenantTx, name)
			})
		}
		for name, run := range writesAndReads {
			e.unchanged(func() {
				require.ErrorIs(t, e.main().Transaction(func(tx *gorm.DB) error {
					require.NoError(t, tx.Create(&Plan{Name: "x"}).Error)
					_ = run(tx.WithContext(e.ctx(idA)))
					return nil
				}), tenancy.ErrTenantMismatch, name)
			})
		}
		// A plain read goes to main, outside of the transaction.
		require.NoError(t, e.in(idA).Transaction(func(tx *gorm.DB) error {
			require.NoError(t, tx.Create(&Tag{Name: "x"}).Error)
			var c Customer
			require.NoError(t, tx.Preload("Plan").First(&c).Error)
			require.Equal(t, "plan of main", c.Plan.Name)
			require.Equal(t, "customer of acme", c.Name)
			require.NoError(t, tx.Create(&Tag{Name: "y"}).Error)
			return nil
		}))
		require.Equal(t, []string{"tag of acme", "x", "y"}, e.dump(idA)["tags"])
	})
}

// Renamed reads the tenants' table under the main table's name.
type Renamed struct{ ID uint }

func (Renamed) TableName() string { return "plans" }

// Promoted is not listed and inherits the name of a main table.
type Promoted struct {
	Renamed
	Name string
}

func TestRedTeam16MainByModelAndTable(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		for _, table := range []string{"plans", "plans p", "plans AS p", "PLANS", `"plans" AS p`} {
			var name string
			if table == "PLANS" && e.name == "postgres" {
				continue // gorm quotes it
			}
			require.NoError(t, e.in(idA).Table(table).Select("name").Scan(&name).Error, table)
			require.Equal(t, "plan of main", name, table)
			require.NoError(t, e.in(idA).Model(&Plan{}).Table(table).Select("name").Scan(&name).Error, table)
			require.Equal(t, "plan of main", name, table)
		}
		var name string
		require.NoError(t, e.main().Table("(?) AS p", e.main().Model(&Plan{})).Select("name").Scan(&name).Error)
		require.Equal(t, "plan of main", name)

		for what, run := range map[string]func(*gorm.DB) error{
			"other model":    func(db *gorm.DB) error { return db.Find(&[]Renamed{}).Error },
			"promoted":       func(db *gorm.DB) error { return db.Find(&[]Promoted{}).Error },
			"other table":    func(db *gorm.DB) error { return db.Table("orders").Find(&[]Plan{}).Error },
			"model on plans": func(db *gorm.DB) error { return db.Model(&Order{}).Table("plans").Count(new(int64)).Error },
			"raw take":       func(db *gorm.DB) error { return db.Raw("SELECT * FROM plans").Take(&Plan{}).Error },
			"join":           func(db *gorm.DB) error { return db.Joins("Plan").Find(&[]Customer{}).Error },
			"raw join": func(db *gorm.DB) error {
				return db.Joins("JOIN plans ON plans.id = customers.plan_id").Find(&[]Customer{}).Error
			},
			"derived table": func(db *gorm.DB) error { return db.Table("(?) AS p", db.Model(&Plan{})).Count(new(int64)).Error },
			"two tables":    func(db *gorm.DB) error { return db.Table("plans, orders").Count(new(int64)).Error },
			"sub-query": func(db *gorm.DB) error {
				return db.Where("plan_id IN (?)", db.Session(&gorm.Session{NewDB: true}).Model(&Plan{}).Select("id")).Find(&[]Customer{}).Error
			},
			"sub-query of main": func(db *gorm.DB) error {
				return db.Where("id IN (?)", db.Session(&gorm.Session{NewDB: true}).Model(&Customer{}).Select("plan_id")).Find(&[]Plan{}).Error
			},
			"in a map": func(db *gorm.DB) error {
				return db.Model(&Tag{}).Where("id = 1").Updates(map[string]any{
					"name": db.Session(&gorm.Session{NewDB: true}).Model(&Plan{}).Select("name").Limit(1)}).Error
			},
		} {
			e.calls.reset()
			e.unchanged(func() { require.ErrorIs(t, run(e.in(idA)), tenancy.ErrCrossDatabase, what) })
			require.Empty(t, e.sent(), what)
		}
		// Raw SQL goes by its context alone.
		require.NoError(t, e.in(idA).Raw("SELECT name FROM plans").Scan(&name).Error)
		require.Equal(t, "plan of acme", name)
		require.NoError(t, e.main().Raw("SELECT name FROM plans").Scan(&name).Error)
		require.Equal(t, "plan of main", name)
	})
}

func TestRedTeam17MigratingMainModels(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		_, err := e.raw[idA].Exec("DROP TABLE plans")
		require.NoError(t, err)
		require.ErrorIs(t, e.in(idA).AutoMigrate(&Plan{}), tenancy.ErrCrossDatabase)
		require.ErrorIs(t, e.in(idA).Migrator().CreateTable(&Plan{}), tenancy.ErrCrossDatabase)
		require.ErrorIs(t, e.in(idB).Migrator().DropTable(&Plan{}), tenancy.ErrCrossDatabase)
		require.ErrorIs(t, e.in(idA).Exec("create table IF NOT EXISTS \"plans\" (id int)").Error, tenancy.ErrCrossDatabase)
		_, err = e.raw[idA].Exec("SELECT 1 FROM plans")
		require.Error(t, err) // still not there
		require.Equal(t, []string{"plan of bravo"}, e.dump(idB)["plans"])
		require.NoError(t, e.main().AutoMigrate(&Plan{}))
	})
}

// A preload's function that returns a session of another tenant.
func TestRedTeam21CapturedSessionInAPreload(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		captured := e.in(idB)
		for _, in := range []*gorm.DB{e.in(idA), tenancy.For(e.db, idA)} {
			var c Customer
			err := in.Preload("Orders", func(*gorm.DB) *gorm.DB { return captured }).First(&c).Error
			require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
			require.Empty(t, c.Orders)
			c = Customer{}
			require.NoError(t, in.Preload("Orders", func(db *gorm.DB) *gorm.DB { return db.Where("id = 2") }).First(&c).Error)
			require.Equal(t, "order 2 of acme", c.Orders[0].Title)
		}
	})
}

// Scopes run before any callback. One that returns a captured session makes
// gorm run the statement there: a write is refused as long as a default
// transaction would begin, a read reads there and fills nothing.
func TestRedTeam21CapturedSessionInAScope(t *testing.T) {
	e := openSQLite(t)
	captured := func(*gorm.DB) *gorm.DB { return e.in(idB) }
	e.unchanged(func() {
		require.Error(t, e.in(idA).Scopes(captured).Where("1 = 1").Delete(&Order{}).Error)
		var orders []Order
		_ = e.in(idA).Scopes(captured).Find(&orders)
		require.Empty(t, orders)
	})
	// Without a default transaction nothing tells it from a statement of b.
	e.unchanged(func() {
		no := func(*gorm.DB) *gorm.DB {
			return e.in(idB).Session(&gorm.Session{SkipDefaultTransaction: true}).Table("notes").Where("1 = 1")
		}
		require.NoError(t, e.in(idA).Scopes(no).Delete(&Note{}).Error)
	}, idB)
	require.Empty(t, e.dump(idB)["notes"])
}

// 21b.
func TestRedTeam21SessionAsACondition(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		cond := e.in(idB).Where("orders.id = 1")
		var got []Order
		require.NoError(t, e.in(idA).Where(cond).Find(&got).Error)
		require.Equal(t, "order 1 of acme", got[0].Title)
		require.NoError(t, e.in(idA).Model(&Customer{ID: 1}).Association("Orders").Find(&got, cond))
		require.Equal(t, "order 1 of acme", got[0].Title)
	})
}

// One gorm.G kept in a variable shares a slice between its Raw calls: make one
// for each call.
func TestRedTeam26GenericsPerCall(t *testing.T) {
	e := openSQLite(t)
	type result struct{ id, title string }
	results := make(chan result)
	const n = 50
	for _, id := range []string{idA, idB} {
		for range n {
			go func() {
				order, err := gorm.G[Order](e.db).Raw("SELECT * FROM orders WHERE title = ?", "order 1 of "+id).Take(e.ctx(id))
				results <- result{"order 1 of " + id, order.Title + fmt.Sprint(err)}
			}()
		}
	}
	for range 2 * n {
		r := <-results
		require.Equal(t, r.id+"<nil>", r.title)
	}
}

type caches struct{}

func (caches) Name() string              { return "gorm:caches" }
func (caches) Initialize(*gorm.DB) error { return nil }

func TestRedTeam39CacheBySQLText(t *testing.T) {
	e := openSQLite(t)
	db, err := gorm.Open(e.db.Dialector, &gorm.Config{})
	require.NoError(t, err)
	require.NoError(t, db.Use(caches{}))
	require.ErrorContains(t, db.Use(tenancy.New(tenancy.Config{Resolver: e.static})), "gorm:caches")
}

func TestRedTeam41OtherCallbacks(t *testing.T) {
	seen := 0
	count := func(*gorm.DB) { seen++ }
	e := openSQLite(t, withAfter(func(db *gorm.DB) {
		create, query := db.Callback().Create(), db.Callback().Query()
		require.NoError(t, create.Before("*").Register("first", count))
		require.NoError(t, create.After("*").Register("last", count))
		require.NoError(t, create.Before("gorm:create").Register("near", count))
		require.NoError(t, query.Before("gorm:query").Register("near", count))
		require.NoError(t, query.Before("*").Register("first", count))
		require.NoError(t, create.Replace("gorm:after_create", func(*gorm.DB) { seen++ }))
		require.NoError(t, create.Remove("gorm:save_before_associations"))
	}))
	requireRouted(t, e, e.db)
	require.Positive(t, seen)

	// Without its callbacks, the router and the transactions still refuse.
	require.NoError(t, e.db.Callback().Create().Replace("tenancy:route", count))
	require.NoError(t, e.db.Callback().Create().Replace("tenancy:check", count))
	require.NoError(t, e.db.Callback().Query().Replace("tenancy:route", count))
	require.Error(t, tenancy.Verify(e.db))
	e.refused(tenancy.ErrNoTenant, func() error { return e.db.Create(&Tag{Name: "x"}).Error })
	e.refused(tenancy.ErrNoTenant, func() error { return e.db.Find(&[]Tag{}).Error })
	e.unchanged(func() {
		tx := e.in(idA).Begin()
		require.ErrorIs(t, tx.WithContext(e.ctx(idB)).Create(&Tag{Name: "x"}).Error, tenancy.ErrTenantMismatch)
		require.ErrorIs(t, tx.Commit().Error, tenancy.ErrTenantMismatch)
	})
}

// One login that may read several databases reaches them in raw SQL: only a
// login for each tenant helps.
func TestRedTeam44QualifiedNames(t *testing.T) {
	e := openSQLite(t)
	var seq int
	var name, path string
	require.NoError(t, e.raw[idB].QueryRow("PRAGMA database_list").Scan(&seq, &name, &path))
	require.NoError(t, tenancy.Conn(e.ctx(idA), e.db, func(conn *sql.Conn) error {
		_, err := conn.ExecContext(context.Background(), "ATTACH ? AS other", path)
		require.NoError(t, err)
		var title string
		require.NoError(t, conn.QueryRowContext(context.Background(), "SELECT title FROM other.orders").Scan(&title))
		require.Equal(t, "order 1 of bravo", title)
		_, err = conn.ExecContext(context.Background(), "DETACH other")
		return err
	}))
}

// perTenant is a model whose TableName changes: gorm asks for it once.
type perTenant struct{ ID uint }

var tableNow string

func (perTenant) TableName() string { return tableNow }

func TestRedTeam44TableNameIsCached(t *testing.T) {
	e := openSQLite(t)
	tableNow = "tags"
	e.calls.reset()
	require.NoError(t, e.in(idA).Find(&[]perTenant{}).Error)
	tableNow = "notes"
	require.NoError(t, e.in(idB).Find(&[]perTenant{}).Error)
	require.Equal(t, []string{"acme: query SELECT * FROM `tags`", "bravo: query SELECT * FROM `tags`"}, e.sent())
}
