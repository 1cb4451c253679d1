package tenancygin_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	tenancygin "github.com/gorm-tenancy/tenancy/contrib/gin"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Requests of several tenants at once, over connections and gin.Contexts that they
// share: each writes into its own tenant's database.
func TestRequestsOfManyTenantsAtOnce(t *testing.T) {
	ids := []string{"acme", "bravo", "charlie"}
	app := notes.New(t, ids...)
	e := gin.New()
	e.Use(gin.RecoveryWithWriter(io.Discard), newMiddleware(t, app.BySubdomain()))
	e.POST("/", func(c *gin.Context) {
		id, _ := tenant.ID(c.Request.Context())
		if err := app.Add(c.Request.Context(), "of "+id+" to "+c.Request.Host); err != nil {
			tenancygin.Error(c, err)
		}
	})
	e.POST("/panic", func(*gin.Context) { panic("boom") })
	app.ManyAtOnce(t, e, ids...)
}

// c.Request.Context() is the context to give to GORM. c has no tenant unless the
// engine says so, and never another one while the handler runs.
func TestContext(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	for _, fallback := range []bool{false, true} {
		e := gin.New()
		e.ContextWithFallback = fallback
		e.Use(newMiddleware(t, app.BySubdomain()))
		e.GET("/", func(c *gin.Context) {
			text, err := app.First(c.Request.Context())
			require.NoError(t, err)
			if !fallback {
				_, err = app.First(c)
				require.ErrorIs(t, err, tenancy.ErrNoTenant)
				_, err = app.First(c.Copy())
				require.ErrorIs(t, err, tenancy.ErrNoTenant)
			} else { // c itself is not given to database/sql: see the package's documentation
				id, _ := tenant.ID(c)
				require.Equal(t, "note of "+id, text)
				copied, err := app.First(c.Copy())
				require.NoError(t, err)
				require.Equal(t, text, copied)
			}
			c.String(http.StatusOK, text)
		})
		for _, id := range []string{"acme", "bravo", "acme"} {
			require.Equal(t, "note of "+id, notes.Send(e, notes.Get(id+".example.com")).Body.String())
		}
	}
}

// What goes on after the handler keeps its tenant, while gin uses the Context of
// the request for another one's.
func TestAfterTheHandler(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	e := gin.New()
	e.Use(newMiddleware(t, app.BySubdomain()))
	var wg sync.WaitGroup
	over := make(chan struct{})
	e.GET("/", func(c *gin.Context) {
		ctx, cp := context.WithoutCancel(c.Request.Context()), c.Copy()
		id, _ := tenant.ID(ctx)
		wg.Go(func() {
			<-over
			for _, ctx := range []context.Context{ctx, context.WithoutCancel(cp.Request.Context())} {
				if err := app.Add(ctx, "late note of "+id); err != nil {
					t.Error(err)
				}
			}
		})
	})
	for _, id := range []string{"acme", "bravo"} {
		r := notes.Get(id + ".example.com")
		ctx, cancel := context.WithCancel(r.Context())
		require.Equal(t, http.StatusOK, notes.Send(e, r.WithContext(ctx)).Code)
		cancel() // as net/http's server does
	}
	close(over)
	wg.Wait()
	for _, id := range []string{"acme", "bravo"} {
		require.Equal(t, []string{"note of " + id, "late note of " + id, "late note of " + id}, app.Raw(t, id))
	}
}

// A statement may be refused after the middleware has let the request in.
func TestSuspendedMeanwhile(t *testing.T) {
	app := notes.New(t, "acme")
	var reached bool
	e := gin.New()
	e.Use(newMiddleware(t, app.BySubdomain()))
	e.GET("/", func(*gin.Context) { app.Suspend("acme") }, first(app), func(*gin.Context) { reached = true })
	got := notes.Send(e, notes.Get("acme.example.com"))
	require.Equal(t, http.StatusServiceUnavailable, got.Code)
	require.Equal(t, "60", got.Header().Get("Retry-After"))
	require.Equal(t, "tenant suspended\n", got.Body.String())
	require.False(t, reached, "Error aborts")
}
