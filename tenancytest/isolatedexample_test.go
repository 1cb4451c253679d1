package tenancytest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// A function of the application's, called as two tenants.
func ExampleRequireIsolated() {
	_ = func(t *testing.T) { // TestOrdersAreIsolated
		env := kit.Env(t)
		listOrders := func(ctx context.Context, w io.Writer) error {
			var all []Order
			if err := env.DB.WithContext(ctx).Find(&all).Error; err != nil {
				return err
			}
			return json.NewEncoder(w).Encode(all)
		}
		tenancytest.RequireIsolated(t, env, listOrders,
			tenancytest.Seed(func(ctx context.Context, db *gorm.DB) error {
				id, _ := tenant.ID(ctx)
				return db.Create(&Order{Title: "order of " + id}).Error
			}))
	}
}

// The application's routes, with the tenant in the host.
func ExampleHTTP() {
	var routes http.Handler // the application's
	_ = tenancytest.HTTP(routes, func(ctx context.Context) (*http.Request, error) {
		id, _ := tenant.ID(ctx)
		return http.NewRequestWithContext(ctx, http.MethodGet, "http://"+id+".example.com/orders", nil)
	})
}
