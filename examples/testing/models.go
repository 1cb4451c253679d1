package orders

import (
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// Plan is a main model: what a tenant may do. It has one row for each tenant.
type Plan struct {
	Tenant  string `gorm:"primaryKey"`
	MaxOpen int
}

// Customer is a tenant's model.
type Customer struct {
	ID   uint
	Name string `gorm:"uniqueIndex"`
	tenancy.Stamp
}

// Order is a tenant's model.
type Order struct {
	ID         uint
	Item       string
	Cancelled  bool
	CustomerID uint
	Customer   Customer
	CreatedAt  time.Time
	tenancy.Stamp
}

// TenantModels are those that each tenant's database has tables of.
func TenantModels() []any { return []any{&Customer{}, &Order{}} }

// MainModels are those of the main database.
func MainModels() []any { return []any{&Plan{}} }
