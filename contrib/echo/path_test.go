package tenancyecho_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

// The two ways to have PathPrefix with echo.
func TestPathPrefix(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	cfg := app.BySubdomain()
	cfg.Source = tenancyhttp.PathPrefix("/t")

	pre := echo.New()
	pre.Pre(newMiddleware(t, cfg))
	pre.GET("/orders", first(app))

	inRoutes := echo.New()
	inRoutes.Group("/t/:tenant", newMiddleware(t, cfg)).GET("/orders", first(app))

	for path, want := range map[string]string{
		"/t/acme/orders":  "note of acme",
		"/t/bravo/orders": "note of bravo",
	} {
		for _, h := range []http.Handler{pre, inRoutes} {
			got := notes.Send(h, httptest.NewRequest(http.MethodGet, path, nil))
			require.Equal(t, want, got.Body.String())
		}
	}
	for path, status := range map[string]int{
		"/t/nobody/orders":   404,
		"/t/closed/orders":   503,
		"/t/%61cme/orders":   400, // echo's parameter would be acme
		"/t/acme%2Fx/orders": 400,
		"/t/bravo%2Forders":  400,
		"/t/../acme/orders":  400,
		"/t/acme/../orders":  400,
	} {
		for _, h := range []http.Handler{pre, inRoutes} {
			require.Equal(t, status, notes.Send(h, httptest.NewRequest(http.MethodGet, path, nil)).Code, path)
		}
	}

	// Routes without the prefix are never found, and so never served.
	misused := echo.New()
	misused.Use(newMiddleware(t, cfg))
	misused.GET("/orders", first(app))
	require.Equal(t, http.StatusNotFound, notes.Send(misused, httptest.NewRequest(http.MethodGet, "/t/acme/orders", nil)).Code)
	require.Equal(t, http.StatusBadRequest, notes.Send(misused, httptest.NewRequest(http.MethodGet, "/orders", nil)).Code)
}
