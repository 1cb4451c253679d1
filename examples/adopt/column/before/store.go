// Package before keeps the rows of all customers in one database, with a column
// that says whose they are.
package before

import (
	"net/http"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/examples/adopt/shop"
)

type Order struct {
	ID       uint
	TenantID string `gorm:"index"`
	Title    string
}

type Store struct{ DB *gorm.DB }

func (s Store) Add(r *http.Request, title string) error {
	return s.DB.WithContext(r.Context()).Create(&Order{TenantID: shop.Customer(r), Title: title}).Error
}

func (s Store) Titles(r *http.Request) (titles []string, err error) {
	err = s.DB.WithContext(r.Context()).Model(&Order{}).
		Where("tenant_id = ?", shop.Customer(r)). // in each query, for ever
		Order("id").Pluck("title", &titles).Error
	return titles, err
}
