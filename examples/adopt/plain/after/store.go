// Package after is the same application: one installation for all customers,
// and the databases that they had.
package after

import (
	"net/http"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/examples/adopt/shop"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

type Order struct {
	ID    uint
	Title string
}

type Entry struct { // of the journal
	ID   uint
	Text string
}

type Store struct{ DB *gorm.DB }

// Open makes db, which was opened as before, the one for all customers.
func Open(db *gorm.DB, engine tenancy.Engine, dsns map[string]string) (*tenancy.Plugin, error) {
	tenants := tenancy.Static{}
	for customer, dsn := range dsns {
		tenants[customer] = tenancy.Database{DSN: dsn}
	}
	plugin := tenancy.New(tenancy.Config{Resolver: tenants, Engine: engine})
	return plugin, db.Use(plugin)
}

// Tenants goes between the authentication and the handlers.
func Tenants(plugin *tenancy.Plugin) (func(http.Handler) http.Handler, error) {
	return tenancyhttp.New(tenancyhttp.Config{
		Source: tenancyhttp.Claim(func(r *http.Request) (string, error) { return shop.Customer(r), nil }),
		Check:  plugin.Check,
	})
}

func (s Store) Add(r *http.Request, title string) error {
	return s.DB.WithContext(r.Context()).Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&Order{Title: title}).Error; err != nil {
			return err
		}
		return tx.Create(&Entry{Text: "ordered " + title}).Error
	})
}

func (s Store) Titles(r *http.Request) (titles []string, err error) {
	err = s.DB.WithContext(r.Context()).Model(&Order{}).Order("id").Pluck("title", &titles).Error
	return titles, err
}
