// Package after keeps the table of places, and leaves the map to the plugin.
package after

import (
	"context"
	"errors"
	"net/http"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

type Order struct {
	ID    uint
	Title string
}

// Place is a row of the main database: where a customer's database is.
type Place struct {
	Customer string `gorm:"primaryKey"`
	DSN      string
}

type Store struct{ DB *gorm.DB }

// Open makes db, the main database, the one for all customers.
func Open(db *gorm.DB, engine tenancy.Engine) (*tenancy.Plugin, error) {
	find := func(ctx context.Context, customer string) (tenancy.Database, error) {
		var place Place
		err := db.WithContext(ctx).First(&place, "customer = ?", customer).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			err = tenancy.ErrTenantNotFound
		}
		return tenancy.Database{DSN: place.DSN}, err
	}
	plugin := tenancy.New(tenancy.Config{
		Resolver:   tenancy.ResolverFunc(find),
		Engine:     engine,
		MainModels: []any{&Place{}},
	})
	return plugin, db.Use(plugin)
}

func (s *Store) Add(r *http.Request, title string) error {
	return s.DB.WithContext(r.Context()).Create(&Order{Title: title}).Error
}

func (s *Store) Titles(r *http.Request) (titles []string, err error) {
	err = s.DB.WithContext(r.Context()).Model(&Order{}).Order("id").Pluck("title", &titles).Error
	return titles, err
}
