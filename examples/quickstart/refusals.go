package main

import (
	"context"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// refusals does what must not work.
func (a *app) refusals(ctx context.Context) error {
	acme, bravo := tenant.Ctx(ctx, "acme"), tenant.Ctx(ctx, "bravo")

	// No tenant: there is no default database.
	if err := a.refused("no tenant", a.db.WithContext(ctx).Find(&[]Order{}).Error, tenancy.ErrNoTenant); err != nil {
		return err
	}
	// A tenant that the resolver does not know.
	err := a.db.WithContext(tenant.Ctx(ctx, "nobody")).Find(&[]Order{}).Error
	if err := a.refused("unknown tenant", err, tenancy.ErrTenantNotFound); err != nil {
		return err
	}

	// Another tenant inside a transaction. Nobody looks at the error, and the
	// transaction can't be committed all the same.
	tx := a.db.WithContext(acme).Begin()
	if err := tx.Create(&Order{Title: "half a piece of work"}).Error; err != nil {
		return err
	}
	err = tx.WithContext(bravo).Create(&Order{Title: "stray"}).Error
	if err := a.refused("bravo in acme's transaction", err, tenancy.ErrTenantMismatch); err != nil {
		return err
	}
	if err := a.refused("its commit", tx.Commit().Error, tenancy.ErrTenantMismatch); err != nil {
		return err
	}
	var n int64
	if err := a.db.WithContext(acme).Model(&Order{}).Where("title LIKE 'half%'").Count(&n).Error; err != nil {
		return err
	}
	if n != 0 {
		return errors.New("the refused transaction left a row")
	}

	// A main model's write could not be a part of a tenant's transaction.
	err = a.db.WithContext(acme).Transaction(func(tx *gorm.DB) error {
		return tx.Create(&Plan{Name: "silver"}).Error
	})
	if err := a.refused("a plan in acme's transaction", err, tenancy.ErrMainInTenantTx); err != nil {
		return err
	}

	// acme's order 1, saved as bravo's: it would overwrite bravo's order 1.
	var order Order
	if err := a.db.WithContext(acme).First(&order, 1).Error; err != nil {
		return err
	}
	return a.refused("acme's row saved as bravo", a.db.WithContext(bravo).Save(&order).Error, tenancy.ErrWrongTenant)
}

// refused prints the refusal, and fails if there was none.
func (a *app) refused(what string, err, want error) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("%s: want the error %q, got %w", what, want, err)
	}
	fmt.Fprintf(a.out, "%s:\n    %v\n", what, err)
	return nil
}
