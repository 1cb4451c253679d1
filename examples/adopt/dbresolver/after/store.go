// Package after lets the plugin choose the customer's database.
package after

import (
	"net/http"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
)

type Order struct {
	ID    uint
	Title string
}

type Store struct{ DB *gorm.DB }

// Open tells the plugin where the databases are. It opens none.
func Open(db *gorm.DB, engine tenancy.Engine, dsns map[string]string) (*tenancy.Plugin, error) {
	tenants := tenancy.Static{}
	for customer, dsn := range dsns {
		tenants[customer] = tenancy.Database{DSN: dsn}
	}
	plugin := tenancy.New(tenancy.Config{Resolver: tenants, Engine: engine})
	return plugin, db.Use(plugin)
}

func (s Store) Add(r *http.Request, title string) error {
	return s.DB.WithContext(r.Context()).Create(&Order{Title: title}).Error
}

func (s Store) Titles(r *http.Request) (titles []string, err error) {
	err = s.DB.WithContext(r.Context()).Model(&Order{}).Order("id").Pluck("title", &titles).Error
	return titles, err
}
