// Package before has a map of databases, filled on demand.
package before

import (
	"net/http"
	"sync"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/examples/adopt/shop"
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

type Store struct {
	Main    *gorm.DB
	Dialect func(dsn string) gorm.Dialector

	mu  sync.Mutex
	dbs map[string]*gorm.DB // never closed: each has a pool, for ever
}

func (s *Store) db(r *http.Request) (*gorm.DB, error) {
	s.mu.Lock() // also while another customer's database is opened
	defer s.mu.Unlock()
	customer := shop.Customer(r)
	if db, ok := s.dbs[customer]; ok {
		return db, nil
	}
	var place Place
	if err := s.Main.First(&place, "customer = ?", customer).Error; err != nil {
		return nil, err
	}
	db, err := gorm.Open(s.Dialect(place.DSN), &gorm.Config{})
	if err != nil {
		return nil, err
	}
	if s.dbs == nil {
		s.dbs = map[string]*gorm.DB{}
	}
	s.dbs[customer] = db
	return db, nil
}

func (s *Store) Add(r *http.Request, title string) error {
	db, err := s.db(r)
	if err != nil {
		return err
	}
	return db.WithContext(r.Context()).Create(&Order{Title: title}).Error
}

func (s *Store) Titles(r *http.Request) (titles []string, err error) {
	db, err := s.db(r)
	if err != nil {
		return nil, err
	}
	err = db.WithContext(r.Context()).Model(&Order{}).Order("id").Pluck("title", &titles).Error
	return titles, err
}
