package tenancygin_test

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
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
	host := bySubdomain(app)
	header := host
	header.Source = tenancyhttp.Header("X-Tenant", netip.MustParsePrefix("10.0.0.0/8"))
	failing := host
	failing.Authorize = func(*http.Request, string) error { return errors.New("s3cret") }
	replaced := host
	replaced.Errors = func(w http.ResponseWriter, r *http.Request, _ error) {
		http.Redirect(w, r, "https://example.com/", http.StatusSeeOther)
	}
	pinned := get("acme.example.com")
	pinned = pinned.WithContext(tenant.Pin(pinned.Context(), "bravo"))

	for name, tc := range map[string]struct {
		cfg        tenancyhttp.Config
		request    *http.Request
		status     int
		retryAfter string
	}{
		"missing":               {host, get("example.com"), 400, ""},
		"invalid":               {host, get("a.b.example.com"), 400, ""},
		"unknown":               {host, get("nobody.example.com"), 404, ""},
		"forbidden":             {host, get("acme.example.com", "X-Member", "bravo"), 404, ""},
		"suspended":             {host, get("closed.example.com"), 503, "60"},
		"behind":                {host, get("old.example.com"), 503, "30"},
		"pinned to another":     {host, pinned, 404, ""},
		"a hook that fails":     {failing, get("acme.example.com"), 500, ""},
		"replaced by Errors":    {replaced, get("acme.example.com", "X-Member", "bravo"), 303, ""},
		"a header of a client":  {header, get("acme.example.com", "X-Tenant", "acme"), 403, ""},
		"an address in headers": {header, get("acme.example.com", "X-Tenant", "acme", "X-Forwarded-For", "10.0.0.1"), 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var reached bool
			e := gin.New()
			var recorded []*gin.Error
			e.Use(func(c *gin.Context) {
				c.Next()
				recorded = c.Errors
			}, newMiddleware(t, tc.cfg), func(*gin.Context) { reached = true })
			e.GET("/", func(*gin.Context) { reached = true })
			got := send(e, tc.request)
			require.False(t, reached)
			require.Equal(t, tc.status, got.Code)
			require.Equal(t, tc.retryAfter, got.Header().Get("Retry-After"))
			require.Empty(t, recorded, "middleware in front may show it to clients")

			plain, err := tenancyhttp.New(tc.cfg)
			require.NoError(t, err)
			require.Equal(t, answer(send(plain(http.NotFoundHandler()), tc.request)), answer(got))
		})
	}
	require.Equal(t, []string{"note of acme"}, app.Raw(t, "acme"))
}

// gin goes on with the next handler when a panic is recovered without an abort.
func TestAPanicOfAHookRefuses(t *testing.T) {
	cfg := bySubdomain(notes.New(t, "acme"))
	cfg.Authorize = func(*http.Request, string) error { panic("boom") }
	var reached bool
	e := gin.New()
	e.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) {
		c.String(http.StatusTeapot, "recovered")
	}), newMiddleware(t, cfg))
	e.GET("/", func(*gin.Context) { reached = true })
	require.Equal(t, http.StatusTeapot, send(e, get("acme.example.com")).Code)
	require.False(t, reached)
}

func TestPublic(t *testing.T) {
	app := notes.New(t, "acme")
	cfg := bySubdomain(app)
	cfg.Public = func(r *http.Request) bool { return r.URL.Path == "/" }
	e := gin.New()
	e.Use(newMiddleware(t, cfg))
	e.GET("/", func(c *gin.Context) {
		id, _ := tenant.ID(c.Request.Context())
		c.String(http.StatusOK, "%q", id)
	})
	require.Equal(t, `""`, send(e, get("example.com")).Body.String())
	require.Equal(t, `"acme"`, send(e, get("acme.example.com")).Body.String())
	require.Equal(t, http.StatusNotFound, send(e, get("acme.example.com", "X-Member", "bravo")).Code)
}
