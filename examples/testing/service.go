// Package orders is a small application whose tests show package tenancytest.
package orders

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy/tenant"
)

var (
	// ErrLimit is returned by [Service.Place] when the tenant's plan allows no
	// more open orders.
	ErrLimit = errors.New("orders: the plan allows no more open orders")
	// ErrNoOrder is returned when there is no such order, or it is cancelled.
	ErrNoOrder = errors.New("orders: no such open order")
)

// Service keeps the orders of all tenants: which one's is said by the context.
type Service struct{ db *gorm.DB }

// New returns a Service on a db that uses tenancy.
func New(db *gorm.DB) *Service { return &Service{db} }

// Place makes an order for the customer, who is made too if new.
func (s *Service) Place(ctx context.Context, customer, item string) (*Order, error) {
	id, _ := tenant.ID(ctx) // without one, the first statement says so
	var plan Plan
	if err := s.db.WithContext(ctx).First(&plan, "tenant = ?", id).Error; err != nil {
		return nil, fmt.Errorf("orders: the plan: %w", err)
	}
	order := &Order{Item: item}
	err := s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		c := Customer{Name: customer}
		// Whoever makes the customer at the same time wins, and is read.
		if err := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&c).Error; err != nil {
			return err
		}
		if err := tx.First(&order.Customer, "name = ?", customer).Error; err != nil {
			return err
		}
		if err := tx.Create(order).Error; err != nil {
			return err
		}
		var open int64
		if err := tx.Model(&Order{}).Where("NOT cancelled").Count(&open).Error; err != nil {
			return err
		}
		if open > int64(plan.MaxOpen) {
			return ErrLimit // takes back the order, and the customer
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return order, nil
}

// Cancel cancels an open order.
func (s *Service) Cancel(ctx context.Context, id uint) error {
	done := s.db.WithContext(ctx).Model(&Order{}).Where("id = ? AND NOT cancelled", id).Update("cancelled", true)
	if done.Error == nil && done.RowsAffected == 0 {
		return ErrNoOrder
	}
	return done.Error
}

// Open returns the open orders and their customers, the oldest first.
func (s *Service) Open(ctx context.Context) (open []Order, err error) {
	return open, s.db.WithContext(ctx).Preload("Customer").Order("id").Find(&open, "NOT cancelled").Error
}
