package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/mail"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// reserved are labels that are no tenant's.
var reserved = []string{operators, "www", "api", "mail"}

// label is what a tenant's id may be here: narrower than tenant.Validate, since
// it is a part of a host.
var label = regexp.MustCompile(`^[a-z][a-z0-9-]{1,29}[a-z0-9]$`)

// signUp is the handler of the form on the first page.
func (a *app) signUp(w http.ResponseWriter, r *http.Request) {
	account, err := readAccount(r)
	if err == nil {
		account, err = a.create(r.Context(), account, r.PostFormValue("password"))
	}
	var bad formError
	if errors.As(err, &bad) {
		a.welcome(w, r, string(bad))
		return
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	http.Redirect(w, r, a.address(r, account.ID)+"/login?new", http.StatusSeeOther)
}

// formError is what the user can mend.
type formError string

func (e formError) Error() string { return string(e) }

func readAccount(r *http.Request) (*Account, error) {
	account := &Account{
		ID:      strings.ToLower(strings.TrimSpace(r.PostFormValue("address"))),
		Company: strings.TrimSpace(r.PostFormValue("company")),
		PlanID:  r.PostFormValue("plan"),
		Email:   strings.TrimSpace(r.PostFormValue("email")),
	}
	password := r.PostFormValue("password")
	switch email, err := mail.ParseAddress(account.Email); {
	case account.Company == "" || len(account.Company) > 100:
		return nil, formError("Give the name of your company.")
	case !label.MatchString(account.ID) || strings.Contains(account.ID, "--"):
		return nil, formError("An address has 3 to 31 lower-case letters, digits and single hyphens, and begins with a letter.")
	case slices.Contains(reserved, account.ID):
		return nil, formError("That address is taken. Choose another one.")
	case err != nil || email.Address != account.Email || len(account.Email) > 254: // not Ann <ann@acme.test>
		return nil, formError("That is no e-mail address.")
	case len(password) < 8 || len(password) > 72: // bcrypt reads no more
		return nil, formError("A password has 8 to 72 characters.")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), passwordCost)
	account.Password = hash
	return account, err
}

// create makes an account and its tenant, and returns the account. Who writes the
// account first has the address. Whoever sends the same again, by a second click
// or since the process died on the way, goes on: the catalog waits for who is at
// work, for a dead one half a minute (its Config.Lease), and finishes what was
// begun.
func (a *app) create(ctx context.Context, account *Account, password string) (*Account, error) {
	ctx = tenant.Main(ctx)
	main := a.db.WithContext(ctx)
	if err := main.First(&Plan{}, "id = ?", account.PlanID).Error; errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, formError("Choose a plan.")
	} else if err != nil {
		return nil, err
	}
	created := main.Clauses(clause.OnConflict{DoNothing: true}).Create(account)
	if created.Error != nil {
		return nil, created.Error
	}
	if created.RowsAffected == 0 {
		there := &Account{}
		if err := main.First(there, "id = ?", account.ID).Error; err != nil {
			return nil, err
		}
		// The password first, which takes long: how long says nothing of the e-mail.
		if bcrypt.CompareHashAndPassword(there.Password, []byte(password)) != nil || there.Email != account.Email {
			return nil, formError("That address is taken. Choose another one.")
		}
		account = there
	}
	_, err := a.tenants.Create(ctx, account.ID, catalog.CreateOptions{Labels: map[string]string{"plan": account.PlanID}})
	return account, err
}

// addOwner fills a new tenant's database, before the tenant is served. It is
// catalog.Config.Seed, and may run again for the same tenant.
func (a *app) addOwner(ctx context.Context, db *gorm.DB, t catalog.Tenant) error {
	var account Account
	if err := a.db.WithContext(tenant.Main(ctx)).First(&account, "id = ?", t.ID).Error; err != nil {
		return fmt.Errorf("the account of %s: %w", t.ID, err)
	}
	return db.WithContext(ctx).Where(User{Email: account.Email}).Attrs(User{Password: account.Password}).
		FirstOrCreate(&User{}).Error
}
