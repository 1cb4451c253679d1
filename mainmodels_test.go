package tenancy_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// TestMainModelsGoToMain runs every verb on a main model under each kind of
// context: whatever the tenant, the main database and no other is met.
func TestMainModelsGoToMain(t *testing.T) {
	verbs := map[string]func(db *gorm.DB, ctx context.Context) error{
		"Create":          func(db *gorm.DB, _ context.Context) error { return db.Create(&Plan{Name: "new"}).Error },
		"CreateInBatches": func(db *gorm.DB, _ context.Context) error { return db.CreateInBatches(&[]Plan{{Name: "x"}}, 2).Error },
		"Save":            func(db *gorm.DB, _ context.Context) error { return db.Save(&Plan{ID: 1, Name: "new"}).Error },
		"Update":          func(db *gorm.DB, _ context.Context) error { return db.Model(&Plan{ID: 1}).Update("name", "new").Error },
		"Delete":          func(db *gorm.DB, _ context.Context) error { return db.Delete(&Plan{ID: 1}).Error },
		"Table": func(db *gorm.DB, _ context.Context) error {
			return db.Table("plans").Where("id = 1").Update("name", "new").Error
		},
		"Returning": func(db *gorm.DB, _ context.Context) error {
			return db.Model(&[]Plan{}).Clauses(clause.Returning{}).Where("id = 1").Update("name", "new").Error
		},
		"G": func(db *gorm.DB, ctx context.Context) error { return gorm.G[Plan](db).Create(ctx, &Plan{Name: "new"}) },
	}
	reads := map[string]func(db *gorm.DB, ctx context.Context) (string, error){
		"First": func(db *gorm.DB, _ context.Context) (string, error) {
			var p Plan
			err := db.First(&p).Error
			return p.Name, err
		},
		"Row": func(db *gorm.DB, _ context.Context) (s string, err error) {
			err = db.Model(&Plan{}).Select("name").Row().Scan(&s)
			return s, err
		},
		"Pluck": func(db *gorm.DB, _ context.Context) (string, error) {
			var s []string
			err := db.Model(&Plan{}).Pluck("name", &s).Error
			return s[0], err
		},
		"alias": func(db *gorm.DB, _ context.Context) (string, error) {
			var p Plan
			err := db.Model(&Plan{}).Table("plans AS p").Where("p.id = 1").Take(&p).Error
			return p.Name, err
		},
		"G": func(db *gorm.DB, ctx context.Context) (string, error) {
			p, err := gorm.G[Plan](db).First(ctx)
			return p.Name, err
		},
	}
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for name, opt := range map[string]envOption{
			"plain":                  withGorm(func(*gorm.Config) {}),
			"PrepareStmt":            withGorm(func(c *gorm.Config) { c.PrepareStmt = true }),
			"SkipDefaultTransaction": withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = true }),
		} {
			e := open(opt).withGadgets()
			for who, ctx := range map[string]context.Context{
				"none": context.Background(), "tenant": e.ctx(idA), "main": tenant.Main(context.Background()),
				"pinned": tenant.Pin(context.Background(), idB),
			} {
				for kind, db := range map[string]*gorm.DB{
					"db": e.db, "session": e.db.Session(&gorm.Session{PrepareStmt: true}), "bound": tenancy.For(e.db, idB),
				} {
					if kind == "bound" && who == "tenant" {
						continue // another tenant's
					}
					for verb, run := range verbs {
						before := e.initial
						require.NoError(t, run(db.WithContext(ctx), ctx), "%s/%s/%s/%s", name, who, kind, verb)
						require.Equal(t, []string{mainName}, e.state().changed(before), "%s/%s/%s/%s", name, who, kind, verb)
						e.refresh(mainName)
					}
					for verb, run := range reads {
						got, err := run(db.WithContext(ctx), ctx)
						require.NoError(t, err, "%s/%s/%s/%s", name, who, kind, verb)
						require.Equal(t, "plan of main", got, "%s/%s/%s/%s", name, who, kind, verb)
					}
				}
			}
		}
	})
}

func TestMainModelInATenantsTransaction(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		// A plain read goes outside; what follows is inside again.
		require.ErrorIs(t, e.in(idA).Transaction(func(tx *gorm.DB) error {
			var p Plan
			stmt := tx.Model(&Plan{})
			require.NoError(t, stmt.First(&p).Error)
			require.Equal(t, "plan of main", p.Name)
			require.NoError(t, tx.Scopes(tenancy.Main).First(&p, p.ID).Error)
			var c Customer
			require.NoError(t, tx.Preload("Plan").Preload("Orders").First(&c).Error)
			require.Equal(t, "plan of main", c.Plan.Name)
			c.Name = "undone"
			require.NoError(t, tx.Save(&c).Error)
			require.NoError(t, tx.Create(&Customer{Name: "undone too", Plan: &p}).Error)
			return errBoom
		}), errBoom)
		require.Equal(t, []string{"customer of acme"}, e.dump(idA)["customers"], "nothing was written outside of the transaction")

		before := e.state()
		for name, write := range map[string]func(tx *gorm.DB) error{
			"create":  func(tx *gorm.DB) error { return tx.Create(&Plan{Name: "x"}).Error },
			"update":  func(tx *gorm.DB) error { return tx.Model(&Plan{ID: 1}).Update("name", "x").Error },
			"delete":  func(tx *gorm.DB) error { return tx.Delete(&Plan{ID: 1}).Error },
			"locking": func(tx *gorm.DB) error { return tx.Clauses(clause.Locking{Strength: "UPDATE"}).First(&Plan{}).Error },
			"new belongs-to": func(tx *gorm.DB) error {
				return tx.Create(&Customer{Name: "x", Plan: &Plan{Name: "x"}}).Error
			},
			"full save": func(tx *gorm.DB) error {
				return tx.Session(&gorm.Session{FullSaveAssociations: true}).Create(&Customer{Name: "x", Plan: &Plan{ID: 1, Name: "x"}}).Error
			},
		} {
			err := e.in(idA).Transaction(func(tx *gorm.DB) error {
				require.NoError(t, tx.Create(&Tag{Name: "half"}).Error)
				require.ErrorIs(t, write(tx), tenancy.ErrMainInTenantTx, name)
				return nil
			})
			require.ErrorIs(t, err, tenancy.ErrMainInTenantTx, name)
			require.Empty(t, e.state().changed(before), name)
		}
	})
}

func TestMainBelongsToIsReferredToAndNotSaved(t *testing.T) {
	for _, skip := range []bool{false, true} {
		engines(t, func(t *testing.T, open func(...envOption) *env) {
			e := open(withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = skip }))
			require.NoError(t, e.db.Create(&Plan{ID: 7, Name: "seven"}).Error)
			plan := Plan{ID: 7, Name: "not to be written"}
			require.NoError(t, e.in(idA).Create(&Customer{Name: "one", Plan: &plan}).Error)
			require.NoError(t, e.in(idA).Create(&[]Customer{{Name: "two", Plan: &plan}, {Name: "three", Plan: &Plan{ID: 1}}}).Error)
			require.NoError(t, e.in(idA).Model(&Customer{ID: 1}).Association("Plan").Replace(&plan))
			require.Equal(t, []string{"7", "7", "7", "1"}, e.dump(idA)["customer_plan"])
			require.Equal(t, []string{"plan of acme"}, e.dump(idA)["plans"])
			require.Equal(t, []string{"plan of main", "seven"}, e.dump(mainName)["plans"])
			require.ErrorIs(t, e.in(idA).Create(&Customer{Name: "x", Plan: &Plan{Name: "new"}}).Error, tenancy.ErrMainInTenantTx)
			require.Len(t, e.dump(idA)["customers"], 4)
			require.Len(t, e.dump(mainName)["plans"], 2)
			// GORM's note in a statement's settings proves nothing by itself.
			noted := e.in(idA).Set("gorm:saved_association_map", &map[reflect.Value]bool{}).Clauses(clause.OnConflict{DoNothing: true})
			require.NoError(t, noted.Create(&Plan{ID: 8, Name: "eight"}).Error)
			require.Contains(t, e.dump(mainName)["plans"], "eight")
		})
	}
}

func TestCrossDatabaseStatementsAreRefused(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		a := e.in(idA)
		before := e.state()
		e.calls.reset()
		for name, run := range map[string]func() error{
			"Joins":        func() error { return a.Joins("Plan").Find(&[]Customer{}).Error },
			"InnerJoins":   func() error { return a.InnerJoins("Plan").Find(&[]Customer{}).Error },
			"nested Joins": func() error { return a.Joins("Customer.Plan").Find(&[]Order{}).Error },
			"raw Joins": func() error {
				return a.Joins("LEFT JOIN plans ON plans.id = customers.plan_id").Find(&[]Customer{}).Error
			},
			"two tables": func() error { return a.Table("orders, plans").Find(&[]map[string]any{}).Error },
			"sub-query": func() error {
				return a.Where("plan_id IN (?)", e.db.Model(&Plan{}).Select("id")).Find(&[]Customer{}).Error
			},
			"sub-query in DELETE": func() error {
				return a.Where("plan_id NOT IN (?)", e.db.Table("plans").Select("id")).Delete(&Customer{}).Error
			},
			"sub-query as table": func() error { return a.Table("(?) AS p", e.db.Model(&Plan{})).Find(&[]map[string]any{}).Error },
			"sub-query in Update": func() error {
				return a.Model(&Customer{ID: 1}).Update("name", e.db.Model(&Plan{}).Select("name").Limit(1)).Error
			},
			"main with tenant's sub-query": func() error {
				return a.Where("id IN (?)", a.Model(&Customer{}).Select("plan_id")).Find(&[]Plan{}).Error
			},
			"model and table differ": func() error { return a.Model(&Plan{}).Table("orders").Find(&[]Plan{}).Error },
			"table and model differ": func() error { return a.Table("plans").Find(&[]Order{}).Error },
			"raw with a main model":  func() error { return a.Raw("SELECT * FROM plans").Take(&Plan{}).Error },
			"DDL":                    func() error { return a.Exec("ALTER TABLE plans ADD COLUMN x int").Error },
			"Migrator":               func() error { return a.Migrator().DropTable(&Plan{}) },
			"AddColumn":              func() error { return a.Migrator().AddColumn(&Plan{}, "Name") },
		} {
			require.ErrorIs(t, run(), tenancy.ErrCrossDatabase, name)
			if name != "Migrator" { // SQLite's switches foreign keys off and on first
				require.Empty(t, e.calls.list(), name)
			}
			e.calls.reset()
		}
		other := a.Where("id IN (?)", e.in(idB).Model(&Order{}).Select("id")).Delete(&Order{}).Error
		require.ErrorIs(t, other, tenancy.ErrTenantMismatch)
		failed := e.db.Model(&Order{})
		_ = failed.AddError(errBoom)
		require.ErrorIs(t, a.Where("id NOT IN (?)", failed).Delete(&Order{}).Error, errBoom, "GORM would delete every row")
		require.Empty(t, e.state().changed(before))
	})
}
