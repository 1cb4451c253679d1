package main

import "github.com/gorm-tenancy/tenancy"

// Plan is a main model: its rows are in the main database, for all tenants.
type Plan struct {
	ID   uint
	Name string
}

// Order is a tenant's model: each tenant's database has a table of its own,
// and its keys start at 1 in each of them.
type Order struct {
	ID     uint
	Title  string
	PlanID *uint
	// No foreign key can lead from a tenant's database into the main one.
	Plan *Plan `gorm:"constraint:-"`
	// Stamp remembers which tenant a row was loaded from. It is no column.
	tenancy.Stamp
}
