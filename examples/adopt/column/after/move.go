package after

import (
	"context"
	"fmt"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Move copies a customer's rows out of the shared tables, which are in the main
// database, into its own. Ids stay as they are, so references do too. It may be
// run again: what is there already is left alone. Let nobody write to the old
// rows meanwhile.
func Move(ctx context.Context, db *gorm.DB, customer string) error {
	old := db.WithContext(tenant.Main(ctx))
	return tenancy.With(ctx, db, customer, func(_ context.Context, own *gorm.DB) error {
		return own.Transaction(func(tx *gorm.DB) error {
			var batch []Order
			copied := old.Table("orders").Where("tenant_id = ?", customer).
				FindInBatches(&batch, 500, func(*gorm.DB, int) error {
					return tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&batch).Error
				})
			if copied.Error != nil {
				return copied.Error
			}
			var there int64
			if err := tx.Model(&Order{}).Count(&there).Error; err != nil {
				return err
			}
			if there != copied.RowsAffected {
				return fmt.Errorf("%s: %d orders before, %d now", customer, copied.RowsAffected, there)
			}
			// PostgreSQL does not count ids that it was given.
			if tx.Name() == "postgres" {
				return tx.Exec("SELECT setval(pg_get_serial_sequence('orders', 'id'), max(id)) FROM orders").Error
			}
			return nil
		})
	})
}
