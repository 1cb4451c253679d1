package tenancy_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
)

// What a hook of a write reads is the primary's: all of it, preloads too, and
// whatever the hook does with one statement.
func TestRedteamReplicaHookReads(t *testing.T) {
	for name, hook := range map[string]func(tx *gorm.DB) error{
		"find":    func(tx *gorm.DB) error { return tx.Find(&[]Tag{}).Error },
		"preload": func(tx *gorm.DB) error { return tx.Preload("Tags").Preload("Orders").Find(&[]Customer{}).Error },
		"again": func(tx *gorm.DB) error {
			var n int64
			q := tx.Model(&Tag{}).Where("id > 0")
			return firstOf(q.Count(&n).Error, q.Find(&[]Tag{}).Error)
		},
		"a hook of the read": func(tx *gorm.DB) error {
			inner := func(tx *gorm.DB) error { return tx.Find(&[]Tag{}).Error }
			ctx := context.WithValue(tx.Statement.Context, hookKey{}, inner)
			return tx.WithContext(ctx).Find(&[]hookedTag{}).Error
		},
		"after Exec": func(tx *gorm.DB) error {
			return firstOf(tx.Exec("UPDATE tags SET name = 'x'").Error, tx.Raw("SELECT name FROM tags").Scan(&[]string{}).Error)
		},
		"in a transaction": func(tx *gorm.DB) error {
			return tx.Transaction(func(tx *gorm.DB) error { return tx.Find(&[]Tag{}).Error })
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, skip := range []bool{true, false} {
				e := openSQLite(t, withReplicas(1), withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = skip }))
				for at, db := range map[string]*gorm.DB{"ctx": e.in(idA), "bound": tenancy.For(e.db, idA)} {
					require.Equal(t, []string{idA}, e.databases(func() {
						ctx := context.WithValue(db.Statement.Context, hookKey{}, hook)
						require.NoError(t, db.WithContext(ctx).Create(&hookedTag{Name: "new"}).Error)
					}), at)
				}
			}
		})
	}
}

// What is run on the pool of a read's own statement, by a hook or another
// plugin's callback, is written to the primary.
func TestRedteamReplicaPoolOfRead(t *testing.T) {
	e := openSQLite(t, withReplicas(1))
	before := e.dump(replicaOf(idA, 1))
	hook := func(tx *gorm.DB) error {
		_, err := tx.Statement.ConnPool.ExecContext(tx.Statement.Context, "INSERT INTO tags (name) VALUES ('seen')")
		return err
	}
	for name, db := range map[string]*gorm.DB{"ctx": e.in(idA), "bound": tenancy.For(e.db, idA)} {
		ctx := context.WithValue(db.Statement.Context, hookKey{}, hook)
		require.NoError(t, db.WithContext(ctx).First(&hookedTag{}).Error, name)
	}
	require.Equal(t, before, e.dump(replicaOf(idA, 1)))
	require.Equal(t, []string{"tag of acme", "seen", "seen"}, e.dump(idA)["tags"])
}

// A hook of a read may go on in a goroutine of its own with its db, as without
// replicas.
func TestRedteamReplicaHookGoroutine(t *testing.T) {
	e := openSQLite(t, withReplicas(1))
	for name, db := range map[string]*gorm.DB{"ctx": e.in(idA), "bound": tenancy.For(e.db, idA)} {
		done := make(chan error, 1)
		hook := func(tx *gorm.DB) error {
			go func() { done <- tx.Model(&Tag{}).Where("id > 0").Update("name", "seen").Error }()
			return nil
		}
		for range 20 {
			ctx := context.WithValue(db.Statement.Context, hookKey{}, hook)
			require.NoError(t, db.WithContext(ctx).First(&hookedTag{}).Error, name)
			require.NoError(t, <-done, name)
		}
	}
}

// The clause Write holds for all that is derived from the statement.
func TestRedteamReplicaWriteClause(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withReplicas(1))
		var n int64
		for name, do := range map[string]func(db *gorm.DB) error{
			"association": func(db *gorm.DB) error {
				return db.Clauses(dbresolver.Write).Model(&Customer{ID: 1}).Association("Tags").Find(&[]Tag{})
			},
			"association, orders": func(db *gorm.DB) error {
				return db.Clauses(dbresolver.Write).Model(&Customer{ID: 1}).Association("Orders").Find(&[]Order{})
			},
			"association, count": func(db *gorm.DB) error {
				db.Clauses(dbresolver.Write).Model(&Customer{ID: 1}).Association("Tags").Count()
				return nil
			},
			"batches": func(db *gorm.DB) error {
				return db.Clauses(dbresolver.Write).FindInBatches(&[]Order{}, 1, func(*gorm.DB, int) error { return nil }).Error
			},
			"first or create": func(db *gorm.DB) error {
				return db.Clauses(dbresolver.Write).Where(Tag{Name: "some"}).FirstOrCreate(&Tag{}).Error
			},
			"scope": func(db *gorm.DB) error {
				return db.Scopes(func(db *gorm.DB) *gorm.DB { return db.Clauses(dbresolver.Write) }).Find(&[]Tag{}).Error
			},
			"generics": func(db *gorm.DB) error {
				_, err := gorm.G[Tag](db, dbresolver.Write).Find(db.Statement.Context)
				return err
			},
			"generics, preload": func(db *gorm.DB) error {
				_, err := gorm.G[Customer](db, dbresolver.Write).Preload("Tags", nil).Find(db.Statement.Context)
				return err
			},
			"generics, count": func(db *gorm.DB) error {
				_, err := gorm.G[Customer](db, dbresolver.Write).Count(db.Statement.Context, "*")
				return err
			},
			"pluck": func(db *gorm.DB) error {
				return db.Clauses(dbresolver.Write).Model(&Tag{}).Pluck("name", &[]string{}).Error
			},
			"joined, nested": func(db *gorm.DB) error {
				return db.Clauses(dbresolver.Write).Joins("Customer").Preload("Customer.Tags").Find(&[]Order{}).Error
			},
			"sub-query": func(db *gorm.DB) error {
				return db.Clauses(dbresolver.Write).Table("(?) AS t", db.Model(&Tag{})).Count(&n).Error
			},
		} {
			for at, db := range map[string]*gorm.DB{"ctx": e.in(idA), "bound": tenancy.For(e.db, idA)} {
				require.Equal(t, []string{idA}, e.databases(func() { require.NoError(t, do(db), name) }), "%s, %s", name, at)
			}
		}
	})
}

// Whatever a Migrator asks, it asks the primary.
func TestRedteamReplicaMigrator(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withReplicas(1))
		for name, do := range map[string]func(db *gorm.DB) error{
			"has table":    func(db *gorm.DB) error { db.Migrator().HasTable(&Tag{}); db.Migrator().HasTable("tags"); return nil },
			"has column":   func(db *gorm.DB) error { db.Migrator().HasColumn(&Tag{}, "name"); return nil },
			"has index":    func(db *gorm.DB) error { db.Migrator().HasIndex(&Order{}, "idx_orders_deleted"); return nil },
			"has relation": func(db *gorm.DB) error { db.Migrator().HasConstraint(&Customer{}, "Orders"); return nil },
			"columns":      func(db *gorm.DB) error { _, err := db.Migrator().ColumnTypes("tags"); return err },
			"columns of Model": func(db *gorm.DB) error {
				_, err := db.Model(&Tag{}).Migrator().ColumnTypes(&Tag{})
				return err
			},
			"columns of Debug": func(db *gorm.DB) error { _, err := db.Debug().Migrator().ColumnTypes(&Tag{}); return err },
			"indexes":          func(db *gorm.DB) error { _, err := db.Migrator().GetIndexes(&Order{}); return err },
			"tables":           func(db *gorm.DB) error { _, err := db.Migrator().GetTables(); return err },
			"database":         func(db *gorm.DB) error { db.Migrator().CurrentDatabase(); return nil },
		} {
			for at, db := range map[string]*gorm.DB{"ctx": e.in(idA), "bound": tenancy.For(e.db, idA)} {
				require.NotContains(t, e.databases(func() { require.NoError(t, do(db), name) }), replicaOf(idA, 1), "%s, %s", name, at)
			}
		}
	})
}
