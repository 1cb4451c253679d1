package tenancygin_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

// The two ways to have PathPrefix with gin.
func TestPathPrefix(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	cfg := app.BySubdomain()
	cfg.Source = tenancyhttp.PathPrefix("/t")

	inRoutes := gin.New()
	inRoutes.Group("/t/:tenant", newMiddleware(t, cfg)).GET("/orders", first(app))

	plain, err := tenancyhttp.New(cfg)
	require.NoError(t, err)
	engine := gin.New()
	engine.GET("/orders", first(app))
	around := plain(engine)

	for path, want := range map[string]string{
		"/t/acme/orders":  "note of acme",
		"/t/bravo/orders": "note of bravo",
	} {
		for _, h := range []http.Handler{inRoutes, around} {
			got := notes.Send(h, httptest.NewRequest(http.MethodGet, path, nil))
			require.Equal(t, want, got.Body.String())
		}
	}
	for path, want := range map[string]struct{ inRoutes, around int }{
		"/t/nobody/orders":   {404, 404},
		"/t/closed/orders":   {503, 503},
		"/t/%61cme/orders":   {400, 400}, // gin's parameter would be acme
		"/t/bravo%2Forders":  {400, 400},
		"/t/../acme/orders":  {404, 400}, // 404: no such route
		"/t/acme/../orders":  {404, 400},
		"/t/acme%2Fx/orders": {404, 400},
	} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		require.Equal(t, want.inRoutes, notes.Send(inRoutes, r).Code, path)
		require.Equal(t, want.around, notes.Send(around, r).Code, path)
	}

	// Routes without the prefix are never found, and so never served.
	misused := gin.New()
	misused.Use(newMiddleware(t, cfg))
	misused.GET("/orders", first(app))
	require.Equal(t, http.StatusNotFound, notes.Send(misused, httptest.NewRequest(http.MethodGet, "/t/acme/orders", nil)).Code)
	require.Equal(t, http.StatusBadRequest, notes.Send(misused, httptest.NewRequest(http.MethodGet, "/orders", nil)).Code)
}
