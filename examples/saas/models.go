package main

import (
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// Plan and Account are in the main database.

type Plan struct {
	ID     string `gorm:"primaryKey"`
	Name   string
	Orders int // at most
	Cents  int // a month
}

// Account is a customer. Its id is the tenant's, and the first label of its
// host.
type Account struct {
	ID        string `gorm:"primaryKey"`
	Company   string
	PlanID    string
	Plan      Plan
	Email     string // of the owner
	Password  []byte // the owner's, by bcrypt
	CreatedAt time.Time
}

var (
	mainModels = []any{&Plan{}, &Account{}}
	plans      = []Plan{
		{ID: "free", Name: "Free", Orders: 3},
		{ID: "pro", Name: "Pro", Orders: 1000, Cents: 2900},
	}
)

// The rest is in each tenant's database.

type User struct {
	ID       uint
	Email    string `gorm:"uniqueIndex"`
	Password []byte // by bcrypt
}

// Session is somebody who is signed in. It is in the database of the tenant that
// it is for, so at another tenant's address there is no such session.
type Session struct {
	Hash    []byte `gorm:"primaryKey"` // of the cookie's value
	UserID  uint
	User    User
	Expires time.Time
}

type Order struct {
	ID        uint
	Title     string
	Cents     int
	CreatedAt time.Time
	Invoice   *Invoice
	tenancy.Stamp
}

// Invoice is written by a background job.
type Invoice struct {
	ID        uint
	OrderID   uint `gorm:"uniqueIndex"`
	Number    string
	CreatedAt time.Time
}

var tenantModels = []any{&User{}, &Session{}, &Order{}, &Invoice{}}
