package tenancyecho_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Requests of several tenants at once, over connections and echo.Contexts that
// they share: each writes into its own tenant's database.
func TestRequestsOfManyTenantsAtOnce(t *testing.T) {
	ids := []string{"acme", "bravo", "charlie"}
	app := notes.New(t, ids...)
	e := echo.New()
	e.Logger = slog.New(slog.DiscardHandler)
	e.Use(middleware.Recover(), newMiddleware(t, app.BySubdomain()))
	e.POST("/", func(c *echo.Context) error {
		id, _ := tenant.ID(c.Request().Context())
		return app.Add(c.Request().Context(), "of "+id+" to "+c.Request().Host)
	})
	e.POST("/panic", func(*echo.Context) error { panic("boom") })
	app.ManyAtOnce(t, e, ids...)
}

// What goes on after the handler keeps its tenant, while echo uses the Context of
// the request for another one's.
func TestAfterTheHandler(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	e := echo.New()
	e.Use(newMiddleware(t, app.BySubdomain()))
	var wg sync.WaitGroup
	over := make(chan struct{})
	e.GET("/", func(c *echo.Context) error {
		ctx := context.WithoutCancel(c.Request().Context())
		id, _ := tenant.ID(ctx)
		wg.Go(func() {
			<-over
			if err := app.Add(ctx, "late note of "+id); err != nil {
				t.Error(err)
			}
		})
		return nil
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
		require.Equal(t, []string{"note of " + id, "late note of " + id}, app.Raw(t, id))
	}
}

// A statement may be refused after the middleware has let the request in, and the
// handler returns its error as it is.
func TestSuspendedMeanwhile(t *testing.T) {
	app := notes.New(t, "acme")
	e := echo.New()
	e.Use(newMiddleware(t, app.BySubdomain()))
	e.GET("/", func(c *echo.Context) error {
		app.Suspend("acme")
		return first(app)(c)
	})
	got := notes.Send(e, notes.Get("acme.example.com"))
	require.Equal(t, http.StatusServiceUnavailable, got.Code)
	require.Equal(t, "60", got.Header().Get("Retry-After"))
	require.JSONEq(t, `{"message":"tenant suspended"}`, got.Body.String())
}

// What is not an error of package tenancy's, or has a status already, is the
// handler's own.
func TestErrorsOfHandlers(t *testing.T) {
	app := notes.New(t, "acme")
	behind := &tenancy.Error{Op: "query", Tenant: "acme", Err: tenancy.ErrTenantBehind, Detail: "s3cret"}
	for name, tc := range map[string]struct {
		err    error
		status int
		body   string
	}{
		"tenancy's":          {behind, 503, `{"message":"tenant is being upgraded"}`},
		"tenancy's, wrapped": {fmt.Errorf("orders: %w", behind), 503, `{"message":"tenant is being upgraded"}`},
		"a bug":              {&tenancy.Error{Err: tenancy.ErrTenantMismatch}, 500, `{"message":"internal server error"}`},
		"with a status":      {echo.NewHTTPError(409, "no").Wrap(behind), 409, `{"message":"no"}`},
		"a status in a cause": {&tenancy.Error{Err: tenancy.ErrUnavailable, Cause: echo.NewHTTPError(404, "s3cret")},
			503, `{"message":"service unavailable"}`}, // a resolver that asks another service
		"a status, and one in a cause": {echo.NewHTTPError(409, "no").Wrap(&tenancy.Error{
			Err: tenancy.ErrUnavailable, Cause: echo.NewHTTPError(404, "s3cret")}), 409, `{"message":"no"}`},
		"echo's":                {echo.ErrNotFound, 404, `{"message":"Not Found"}`},
		"the application's":     {errors.New("s3cret"), 500, `{"message":"Internal Server Error"}`},
		"a deadline of its own": {context.DeadlineExceeded, 500, `{"message":"Internal Server Error"}`},
	} {
		t.Run(name, func(t *testing.T) {
			e := echo.New()
			e.Use(newMiddleware(t, app.BySubdomain()))
			var seen error
			e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c *echo.Context) error { seen = next(c); return seen }
			})
			e.GET("/", func(*echo.Context) error { return tc.err })
			got := notes.Send(e, notes.Get("acme.example.com"))
			require.Equal(t, tc.status, got.Code)
			require.JSONEq(t, tc.body, got.Body.String())
			require.Equal(t, tc.err, seen, "within the middleware nothing is changed")
		})
	}
}
