package main

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// account is the tenant's row of the main database: a main model is read there,
// whatever the tenant.
func (a *app) account(r *http.Request) (account Account, err error) {
	id, _ := tenant.ID(r.Context())
	err = a.db.WithContext(r.Context()).Preload("Plan").First(&account, "id = ?", id).Error
	return account, err
}

func (a *app) ordersPage(w http.ResponseWriter, r *http.Request) {
	a.orders(w, r, http.StatusOK, "")
}

func (a *app) orders(w http.ResponseWriter, r *http.Request, status int, notice string) {
	account, err := a.account(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var orders []Order
	if err := a.db.WithContext(r.Context()).Preload("Invoice").Order("id DESC").Limit(100).Find(&orders).Error; err != nil {
		a.fail(w, r, err)
		return
	}
	pending := false
	for _, o := range orders {
		pending = pending || o.Invoice == nil
	}
	a.render(w, r, status, "orders", map[string]any{"Account": account, "Orders": orders, "User": sessionOf(r).User,
		"Notice": notice, "Pending": pending})
}

// addOrder writes the order, and enqueues what comes of it.
func (a *app) addOrder(w http.ResponseWriter, r *http.Request) {
	order := Order{Title: strings.TrimSpace(r.PostFormValue("title"))}
	amount, err := strconv.ParseFloat(r.PostFormValue("amount"), 64)
	if order.Title == "" || len(order.Title) > 200 || err != nil || !(amount >= 0 && amount < 1e6) {
		a.orders(w, r, http.StatusUnprocessableEntity, "An order has a title, and an amount below a million.")
		return
	}
	order.Cents = int(math.Round(amount * 100))
	account, err := a.account(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	full := false
	err = a.db.WithContext(r.Context()).Transaction(func(tx *gorm.DB) error {
		// One order of a tenant at a time: two that count before either is
		// written would both find room. SQLite has one writer at a time anyway.
		if err := tx.Clauses(clause.Locking{Strength: "UPDATE"}).First(&User{}).Error; err != nil {
			return err
		}
		var n int64
		if err := tx.Model(&Order{}).Count(&n).Error; err != nil {
			return err
		}
		if full = n >= int64(account.Plan.Orders); full {
			return nil
		}
		return tx.Create(&order).Error
	})
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if full {
		a.orders(w, r, http.StatusUnprocessableEntity, fmt.Sprintf("The plan %s has %d orders.", account.Plan.Name, account.Plan.Orders))
		return
	}
	if _, err := a.queue.Insert(r.Context(), invoiceOrder{order.ID}, nil); err != nil {
		// The order is there; invoiceMissed finds it.
		a.log.WarnContext(r.Context(), "an invoice was not enqueued", "order", order.ID, "error", err)
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
