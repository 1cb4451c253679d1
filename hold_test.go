package tenancy_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// movingOrder has hooks that turn their own statement to the main database.
type movingOrder struct {
	ID     uint
	Title  string
	Parent *Customer `gorm:"foreignKey:CustomerID"`

	CustomerID *uint
}

func (movingOrder) TableName() string               { return "orders" }
func (*movingOrder) BeforeCreate(tx *gorm.DB) error { tenancy.Main(tx); return nil }
func (*movingOrder) BeforeUpdate(tx *gorm.DB) error { tenancy.Main(tx); return nil }
func (*movingOrder) BeforeDelete(tx *gorm.DB) error {
	tx.Statement.Context = tenant.Main(tx.Statement.Context)
	return nil
}

func TestHookCantMoveAWriteToMain(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for _, skip := range []bool{false, true} {
			e := open(withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = skip }))
			before := e.dumps()
			for name, db := range map[string]*gorm.DB{"context": e.in(idA), "For": tenancy.For(e.db, idA), "For without": tenancy.For(e.db, idA).WithContext(context.Background())} {
				for verb, write := range map[string]func() error{
					"create":  func() error { return db.Create(&movingOrder{Title: "moved"}).Error },
					"parent":  func() error { return db.Create(&movingOrder{Title: "moved", Parent: &Customer{Name: "moved"}}).Error },
					"update":  func() error { return db.Model(&movingOrder{ID: 1}).Update("title", "moved").Error },
					"delete":  func() error { return db.Delete(&movingOrder{ID: 1}).Error },
					"batches": func() error { return db.CreateInBatches(&[]movingOrder{{Title: "moved"}}, 1).Error },
				} {
					require.ErrorIs(t, write(), tenancy.ErrTenantMismatch, "%v/%s/%s", skip, name, verb)
					require.Equal(t, before, e.dumps(), "%v/%s/%s", skip, name, verb)
				}
			}
			require.NoError(t, tenancy.For(e.db, idA).Create(&Tag{Name: "kept"}).Error)
			require.Equal(t, []string{"tag of acme", "kept"}, e.dump(idA)["tags"])
		}
	})
}
