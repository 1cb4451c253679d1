package orders

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestPlace(t *testing.T) {
	onEach(t, func(t *testing.T, env *tenancytest.Env) {
		ctx := withPlan(t, env, env.Tenant("acme"), 3)
		s := New(env.DB)
		for _, item := range []string{"anvil", "rocket"} {
			_, err := s.Place(ctx, "coyote", item)
			require.NoError(t, err)
		}
		open, err := s.Open(ctx)
		require.NoError(t, err)
		coyote := Customer{Name: "coyote"}
		tenancytest.Equal(t, []Order{{Item: "anvil", Customer: coyote}, {Item: "rocket", Customer: coyote}}, open,
			tenancytest.Ignore("ID", "CustomerID"), tenancytest.IgnoreTimestamps())
		require.Equal(t, open[0].CustomerID, open[1].CustomerID)
	})
}

func TestLimit(t *testing.T) {
	onEach(t, func(t *testing.T, env *tenancytest.Env) {
		ctx := withPlan(t, env, env.Tenant("acme"), 1)
		s := New(env.DB)
		first, err := s.Place(ctx, "coyote", "anvil")
		require.NoError(t, err)
		_, err = s.Place(ctx, "road runner", "seeds")
		require.ErrorIs(t, err, ErrLimit)
		var customers int64
		require.NoError(t, env.DB.WithContext(ctx).Model(&Customer{}).Count(&customers).Error)
		require.EqualValues(t, 1, customers, "what was refused is undone")

		require.NoError(t, s.Cancel(ctx, first.ID))
		require.ErrorIs(t, s.Cancel(ctx, first.ID), ErrNoOrder)
		_, err = s.Place(ctx, "road runner", "seeds")
		require.NoError(t, err)
	})
}

func TestNoPlan(t *testing.T) {
	onEach(t, func(t *testing.T, env *tenancytest.Env) {
		_, err := New(env.DB).Place(env.Tenant("acme"), "coyote", "anvil")
		require.ErrorIs(t, err, gorm.ErrRecordNotFound)
		_, err = New(env.DB).Open(context.Background())
		require.ErrorIs(t, err, tenancy.ErrNoTenant)
	})
}

func TestTenantsAreApart(t *testing.T) {
	onEach(t, func(t *testing.T, env *tenancytest.Env) {
		acme, bravo := env.Two()
		withPlan(t, env, acme, 1)
		withPlan(t, env, bravo, 1)
		s := New(env.DB)
		_, err := s.Place(acme, "coyote", "anvil")
		require.NoError(t, err)
		of, err := s.Place(bravo, "coyote", "rocket") // bravo's own limit, and its own coyote
		require.NoError(t, err)
		open, err := s.Open(acme)
		require.NoError(t, err)
		require.Len(t, open, 1)
		require.Equal(t, "anvil", open[0].Item)
		require.ErrorIs(t, env.DB.WithContext(acme).Save(of).Error, tenancy.ErrWrongTenant)
	})
}

// Nothing passes from one tenant to another: in what it returns, in its
// errors, and in what reaches the databases.
func TestOpenIsIsolated(t *testing.T) {
	onEach(t, func(t *testing.T, env *tenancytest.Env) {
		s := New(env.DB)
		tenancytest.RequireIsolated(t, env, func(ctx context.Context, w io.Writer) error {
			open, err := s.Open(ctx)
			if err != nil {
				return err
			}
			return json.NewEncoder(w).Encode(open)
		}, tenancytest.Seed(func(ctx context.Context, db *gorm.DB) error {
			id, _ := tenant.ID(ctx)
			return db.Create(&Order{Item: "anvil of " + id, Customer: Customer{Name: "coyote of " + id}}).Error
		}))
	})
}

// What happens at the same time needs connections of its own: a clone.
func TestPlaceAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, env *tenancytest.Env) {
		ctx := withPlan(t, env, env.Clone("acme"), 100)
		s := New(env.DB)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if _, err := s.Place(ctx, "coyote", fmt.Sprint("anvil ", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		open, err := s.Open(ctx)
		require.NoError(t, err)
		require.Len(t, open, 8)
		for _, o := range open {
			require.Equal(t, open[0].CustomerID, o.CustomerID)
		}
	})
}
