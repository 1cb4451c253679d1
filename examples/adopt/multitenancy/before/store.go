// Package before gives each customer a schema of one database, with
// gorm-multitenancy.
package before

import (
	"context"
	"net/http"

	multitenancy "github.com/bartventer/gorm-multitenancy/v8"

	"github.com/gorm-tenancy/tenancy/examples/adopt/shop"
)

type Order struct {
	ID    uint
	Title string
}

func (Order) TableName() string   { return "orders" }
func (Order) IsSharedModel() bool { return false }

// Customer is in the shared schema, public.
type Customer struct {
	ID uint
	multitenancy.TenantModel
}

func (Customer) TableName() string   { return "public.customers" }
func (Customer) IsSharedModel() bool { return true }

type Store struct{ DB *multitenancy.DB }

// SignUp makes the customer's schema and its tables.
func (s Store) SignUp(ctx context.Context, name string) error {
	customer := Customer{TenantModel: multitenancy.TenantModel{DomainURL: name + ".example.com", SchemaName: name}}
	if err := s.DB.WithContext(ctx).Create(&customer).Error; err != nil {
		return err
	}
	return s.DB.MigrateTenantModels(ctx, name)
}

func (s Store) Add(r *http.Request, title string) error {
	return s.DB.WithTenant(r.Context(), shop.Customer(r), func(tx *multitenancy.DB) error {
		return tx.Create(&Order{Title: title}).Error
	})
}

func (s Store) Titles(r *http.Request) (titles []string, err error) {
	err = s.DB.WithTenant(r.Context(), shop.Customer(r), func(tx *multitenancy.DB) error {
		return tx.Model(&Order{}).Order("id").Pluck("title", &titles).Error
	})
	return titles, err
}
