// Package before is a plain GORM application: each customer has an installation
// of it, with a database.
package before

import (
	"net/http"

	"gorm.io/gorm"
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

func (s Store) Add(_ *http.Request, title string) error {
	return s.DB.Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&Order{Title: title}).Error; err != nil {
			return err
		}
		return tx.Create(&Entry{Text: "ordered " + title}).Error
	})
}

func (s Store) Titles(_ *http.Request) (titles []string, err error) {
	err = s.DB.Model(&Order{}).Order("id").Pluck("title", &titles).Error
	return titles, err
}
