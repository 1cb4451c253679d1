package tenancy_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

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
