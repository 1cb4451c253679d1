package after

import (
	"context"
	"fmt"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Move copies a customer's rows out of the shared tables, which are in the main
// database, into its own: all of them or none. Ids stay as they are, so references
// do too, and a place that has orders already is refused: one of them may have an
// old one's id. Let nobody write to the old rows meanwhile.
func Move(ctx context.Context, db *gorm.DB, customer string) error {
	old := db.WithContext(tenant.Main(ctx))
	return tenancy.With(ctx, db, customer, func(_ context.Context, own *gorm.DB) error {
		return own.Transaction(func(tx *gorm.DB) error {
			var there int64
			if err := tx.Model(&Order{}).Count(&there).Error; err != nil {
				return err
			}
			if there > 0 {
				return fmt.Errorf("%s has %d orders already: it was moved, or has begun anew", customer, there)
			}
			var batch []Order
			err := old.Table("orders").Where("tenant_id = ?", customer).
				FindInBatches(&batch, 500, func(*gorm.DB, int) error { return tx.Create(&batch).Error }).Error
			if err != nil {
				return err
			}
			// PostgreSQL does not count ids that it was given.
			if tx.Name() == "postgres" {
				return tx.Exec("SELECT setval(pg_get_serial_sequence('orders', 'id'), max(id)) FROM orders").Error
			}
			return nil
		})
	})
}
