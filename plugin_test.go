package tenancy_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

func TestTwoLinesAdoptTheModule(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		require.NoError(t, tenancy.Verify(e.db))
		var orders []Order
		require.NoError(t, e.in(idA).Find(&orders).Error)
		require.Equal(t, "order 1 of acme", orders[0].Title)
		id, ok := orders[0].Tenant()
		require.True(t, ok)
		require.Equal(t, idA, id)
		require.NoError(t, e.in(idB).Preload("Customer.Plan").Find(&orders).Error)
		require.Equal(t, "order 1 of bravo", orders[0].Title)
		require.Equal(t, "customer of bravo", orders[0].Customer.Name)
		require.Equal(t, "plan of main", orders[0].Customer.Plan.Name)

		require.ErrorIs(t, e.in(idA).Save(&orders[0]).Error, tenancy.ErrWrongTenant)
		require.ErrorIs(t, e.db.Find(&orders).Error, tenancy.ErrNoTenant)
		var plans []Plan
		require.NoError(t, e.db.Find(&plans).Error)
		require.Equal(t, "plan of main", plans[0].Name)

		var c Customer
		require.NoError(t, e.in(idA).Preload("Plan").First(&c).Error)
		c.Name = "renamed"
		require.NoError(t, e.in(idA).Save(&c).Error)
		require.Equal(t, []string{"renamed"}, e.dump(idA)["customers"])
		require.Equal(t, []string{"plan of acme"}, e.dump(idA)["plans"])

		plan := plans[0]
		require.NoError(t, e.in(idA).Create(&Customer{Name: "new", Plan: &plan}).Error)
		require.Equal(t, []string{"1", "1"}, e.dump(idA)["customer_plan"])
		require.ErrorIs(t, e.in(idA).Create(&Customer{Name: "new2", Plan: &Plan{Name: "x"}}).Error, tenancy.ErrMainInTenantTx)

		err := e.in(idA).Transaction(func(tx *gorm.DB) error {
			require.NoError(t, tx.Create(&Tag{Name: "t"}).Error)
			_ = tx.WithContext(e.ctx(idB)).Create(&Tag{Name: "t"})
			return nil
		})
		require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
		require.Equal(t, []string{"tag of acme"}, e.dump(idA)["tags"])
		require.NoError(t, e.in(idA).AutoMigrate(tenantModels...))
	})
}
