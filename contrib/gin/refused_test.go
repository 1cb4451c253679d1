package tenancygin_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	tenancygin "github.com/gorm-tenancy/tenancy/contrib/gin"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestNewRefuses(t *testing.T) {
	mw, err := tenancygin.New(tenancyhttp.Config{Source: tenancyhttp.Subdomain("example.com")})
	require.ErrorContains(t, err, "Authorize is not set")
	require.Nil(t, mw)
}

// What is refused reaches no later handler, and is answered as by tenancyhttp, to
// the last byte.
func TestRefused(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	refusals := app.Refusals()
	replaced := app.BySubdomain()
	replaced.Errors = func(w http.ResponseWriter, r *http.Request, _ error) {
		http.Redirect(w, r, "https://example.com/", http.StatusSeeOther)
	}
	refusals["replaced by Errors"] = notes.Refusal{Config: replaced, Request: notes.Get("acme.example.com", "X-Member", "bravo"), Status: 303}

	for name, tc := range refusals {
		t.Run(name, func(t *testing.T) {
			var reached bool
			e := gin.New()
			var recorded []*gin.Error
			e.Use(func(c *gin.Context) {
				c.Next()
				recorded = c.Errors
			}, newMiddleware(t, tc.Config), func(*gin.Context) { reached = true })
			e.GET("/", func(*gin.Context) { reached = true })
			got := notes.Send(e, tc.Request)
			require.False(t, reached)
			require.Equal(t, tc.Status, got.Code)
			require.Equal(t, tc.RetryAfter, got.Header().Get("Retry-After"))
			require.Empty(t, recorded, "middleware in front may show it to clients")

			plain, err := tenancyhttp.New(tc.Config)
			require.NoError(t, err)
			require.Equal(t, notes.Answer(notes.Send(plain(http.NotFoundHandler()), tc.Request)), notes.Answer(got))
		})
	}
	require.Equal(t, []string{"note of acme"}, app.Raw(t, "acme"))
}

// gin goes on with the next handler when a panic is recovered without an abort.
func TestAPanicOfAHookRefuses(t *testing.T) {
	cfg := notes.New(t, "acme").BySubdomain()
	cfg.Authorize = func(*http.Request, string) error { panic("boom") }
	var reached bool
	e := gin.New()
	e.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) {
		c.String(http.StatusTeapot, "recovered")
	}), newMiddleware(t, cfg))
	e.GET("/", func(*gin.Context) { reached = true })
	require.Equal(t, http.StatusTeapot, notes.Send(e, notes.Get("acme.example.com")).Code)
	require.False(t, reached)
}

func TestPublic(t *testing.T) {
	app := notes.New(t, "acme")
	cfg := app.BySubdomain()
	cfg.Public = func(r *http.Request) bool { return r.URL.Path == "/" }
	e := gin.New()
	e.Use(newMiddleware(t, cfg))
	e.GET("/", func(c *gin.Context) {
		id, _ := tenant.ID(c.Request.Context())
		c.String(http.StatusOK, "%q", id)
	})
	require.Equal(t, `""`, notes.Send(e, notes.Get("example.com")).Body.String())
	require.Equal(t, `"acme"`, notes.Send(e, notes.Get("acme.example.com")).Body.String())
	require.Equal(t, http.StatusNotFound, notes.Send(e, notes.Get("acme.example.com", "X-Member", "bravo")).Code)
}
