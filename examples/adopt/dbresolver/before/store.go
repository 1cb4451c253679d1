// Package before chooses the customer's database with dbresolver.
package before

import (
	"net/http"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy/examples/adopt/shop"
)

type Order struct {
	ID    uint
	Title string
}

type Store struct{ DB *gorm.DB }

// Open registers the databases: those that are known when the program starts,
// each with a pool that stays open.
func Open(db *gorm.DB, dialect func(dsn string) gorm.Dialector, dsns map[string]string) error {
	resolver := &dbresolver.DBResolver{}
	for customer, dsn := range dsns {
		resolver.Register(dbresolver.Config{Sources: []gorm.Dialector{dialect(dsn)}}, customer)
	}
	return db.Use(resolver)
}

func (s Store) Add(r *http.Request, title string) error {
	return s.DB.WithContext(r.Context()).
		Clauses(dbresolver.Use(shop.Customer(r))). // without it, the main database
		Create(&Order{Title: title}).Error
}

func (s Store) Titles(r *http.Request) (titles []string, err error) {
	err = s.DB.WithContext(r.Context()).
		Clauses(dbresolver.Use(shop.Customer(r))).
		Model(&Order{}).Order("id").Pluck("title", &titles).Error
	return titles, err
}
