// Package after gives each customer a database, which may be on any server.
package after

import (
	"context"
	"database/sql"
	"net/http"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

type Order struct {
	ID    uint
	Title string
}

// Customer is in the main database: it is one of Config.MainModels.
type Customer struct {
	ID         uint
	DomainURL  string
	SchemaName string
}

func (Customer) TableName() string { return "customers" }

type Store struct {
	DB      *gorm.DB
	Tenants *catalog.Catalog
}

// Open makes db, the old database, the main one. New databases are made on
// server.
func Open(ctx context.Context, db *gorm.DB, server *tenancypg.Server) (Store, *tenancy.Plugin, error) {
	cat, err := catalog.New(db, catalog.Config{
		Servers: map[string]catalog.Server{"pg1": server},
		Migrator: migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
			own, err := gorm.Open(postgres.New(postgres.Config{Conn: db}), &gorm.Config{})
			if err != nil {
				return err
			}
			return own.WithContext(ctx).AutoMigrate(&Order{})
		}),
	})
	if err != nil {
		return Store{}, nil, err
	}
	if err := cat.Migrate(ctx); err != nil {
		return Store{}, nil, err
	}
	plugin := tenancy.New(tenancy.Config{Resolver: cat, Engine: tenancypg.Engine{}, MainModels: []any{&Customer{}}})
	return Store{DB: db, Tenants: cat}, plugin, db.Use(plugin)
}

// Take makes a database that schemas were moved into the customer's.
func (s Store) Take(ctx context.Context, name, database string) error {
	_, err := s.Tenants.Adopt(ctx, name, catalog.AdoptOptions{
		CreateOptions: catalog.CreateOptions{Server: "pg1"},
		Database:      database,
		Migrate:       true,
	})
	return err
}

// SignUp makes the customer's database and its tables.
func (s Store) SignUp(ctx context.Context, name string) error {
	customer := Customer{DomainURL: name + ".example.com", SchemaName: name}
	if err := s.DB.WithContext(ctx).Create(&customer).Error; err != nil {
		return err
	}
	_, err := s.Tenants.Create(ctx, name, catalog.CreateOptions{})
	return err
}

func (s Store) Add(r *http.Request, title string) error {
	return s.DB.WithContext(r.Context()).Create(&Order{Title: title}).Error
}

func (s Store) Titles(r *http.Request) (titles []string, err error) {
	err = s.DB.WithContext(r.Context()).Model(&Order{}).Order("id").Pluck("title", &titles).Error
	return titles, err
}
