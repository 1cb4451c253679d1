// Package after gives each customer a database. There is no column to forget.
package after

import (
	"net/http"

	"gorm.io/gorm"
)

type Order struct {
	ID    uint
	Title string
}

type Store struct{ DB *gorm.DB }

func (s Store) Add(r *http.Request, title string) error {
	return s.DB.WithContext(r.Context()).Create(&Order{Title: title}).Error
}

func (s Store) Titles(r *http.Request) (titles []string, err error) {
	err = s.DB.WithContext(r.Context()).Model(&Order{}).Order("id").Pluck("title", &titles).Error
	return titles, err
}
