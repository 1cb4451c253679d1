package tenancytest_test

import "github.com/gorm-tenancy/tenancy"

type Plan struct {
	ID   uint
	Name string `gorm:"uniqueIndex"`
}

type Order struct {
	ID     uint
	Title  string `gorm:"uniqueIndex"`
	PlanID *uint
	Plan   *Plan `gorm:"constraint:-"`
	Lines  []Line
	tenancy.Stamp
}

type Line struct {
	ID      uint
	OrderID uint
	Text    string
	tenancy.Stamp
}
