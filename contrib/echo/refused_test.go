package tenancyecho_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	tenancyecho "github.com/gorm-tenancy/tenancy/contrib/echo"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestNewRefuses(t *testing.T) {
	mw, err := tenancyecho.New(tenancyhttp.Config{Source: tenancyhttp.Subdomain("example.com")})
	require.ErrorContains(t, err, "Authorize is not set")
	require.Nil(t, mw)
}

// What is refused reaches no handler, and has the status, headers and words of
// tenancyhttp, in echo's JSON.
func TestRefused(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	host := bySubdomain(app)
	header := host
	header.Source = tenancyhttp.Header("X-Tenant", netip.MustParsePrefix("10.0.0.0/8"))
	failing := host
	failing.Authorize = func(*http.Request, string) error { return errors.New("s3cret") }
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
		"a header of a client":  {header, get("acme.example.com", "X-Tenant", "acme"), 403, ""},
		"an address in headers": {header, get("acme.example.com", "X-Tenant", "acme", "X-Real-Ip", "10.0.0.1"), 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var reached bool
			reach := func(*echo.Context) error { reached = true; return nil }
			var seen error
			e := echo.New()
			e.HTTPErrorHandler = echo.DefaultHTTPErrorHandler(true)
			e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c *echo.Context) error {
					seen = next(c)
					return seen
				}
			}, newMiddleware(t, tc.cfg))
			e.GET("/", reach)
			got := send(e, tc.request)
			require.False(t, reached)
			require.Equal(t, tc.status, got.Code)
			require.Equal(t, tc.retryAfter, got.Header().Get("Retry-After"))

			plain, err := tenancyhttp.New(tc.cfg)
			require.NoError(t, err)
			want := send(plain(http.NotFoundHandler()), tc.request)
			body, err := json.Marshal(map[string]string{"message": strings.TrimSpace(want.Body.String())})
			require.NoError(t, err)
			require.JSONEq(t, string(body), got.Body.String())
			require.Equal(t, "application/json", got.Header().Get("Content-Type"))
			got.Header().Del("Content-Type")
			want.Header().Del("Content-Type")
			require.Equal(t, want.Header(), got.Header())

			// What is in front sees the reason, and finds the answer in echo's ways.
			var reason *tenancy.Error
			require.ErrorAs(t, seen, &reason)
			require.Equal(t, tc.status, echo.StatusCode(seen))
			var he *echo.HTTPError
			require.ErrorAs(t, seen, &he)
			require.Equal(t, tc.status, he.Code)
			require.Equal(t, reason.Error(), seen.Error())
		})
	}
	require.Equal(t, []string{"note of acme"}, app.Raw(t, "acme"))
}

// Who may not use a tenant gets what anybody gets for one that isn't there, also
// where echo is made to expose errors.
func TestARefusalLooksLikeAnUnknownTenant(t *testing.T) {
	cfg := bySubdomain(notes.New(t, "acme"))
	for _, expose := range []bool{false, true} {
		e := echo.New()
		e.HTTPErrorHandler = echo.DefaultHTTPErrorHandler(expose)
		e.Use(newMiddleware(t, cfg))
		require.Equal(t, answer(send(e, get("nobody.example.com"))),
			answer(send(e, get("acme.example.com", "X-Member", "bravo"))))
	}
}

// Config.Errors answers in echo's place, and with echo's own ResponseWriter.
func TestErrorsReplacesAResponse(t *testing.T) {
	cfg := bySubdomain(notes.New(t, "acme"))
	cfg.Errors = func(w http.ResponseWriter, r *http.Request, err error) {
		require.IsType(t, &echo.Response{}, w)
		if errors.Is(err, tenancy.ErrTenantNotFound) {
			http.Redirect(w, r, "https://example.com/", http.StatusSeeOther)
			return
		}
		tenancyhttp.Error(w, r, err)
	}
	var reached bool
	e := echo.New()
	e.HTTPErrorHandler = func(_ *echo.Context, err error) { require.NoError(t, err) }
	e.Use(newMiddleware(t, cfg))
	e.GET("/", func(*echo.Context) error { reached = true; return nil })
	require.Equal(t, http.StatusSeeOther, send(e, get("nobody.example.com")).Code)
	require.Equal(t, "tenant suspended\n", send(e, get("closed.example.com")).Body.String())
	require.False(t, reached)
	require.Equal(t, http.StatusOK, send(e, get("acme.example.com")).Code)
	require.True(t, reached)
}

func TestAPanicOfAHookRefuses(t *testing.T) {
	cfg := bySubdomain(notes.New(t, "acme"))
	cfg.Authorize = func(*http.Request, string) error { panic("boom") }
	var reached bool
	e := echo.New()
	e.Use(middleware.Recover(), newMiddleware(t, cfg))
	e.GET("/", func(*echo.Context) error { reached = true; return nil })
	require.Equal(t, http.StatusInternalServerError, send(e, get("acme.example.com")).Code)
	require.False(t, reached)
}

func TestPublic(t *testing.T) {
	cfg := bySubdomain(notes.New(t, "acme"))
	cfg.Public = func(r *http.Request) bool { return r.URL.Path == "/" }
	e := echo.New()
	e.Use(newMiddleware(t, cfg))
	e.GET("/", func(c *echo.Context) error {
		id, _ := tenant.ID(c.Request().Context())
		return c.String(http.StatusOK, fmt.Sprintf("%q", id))
	})
	require.Equal(t, `""`, send(e, get("example.com")).Body.String())
	require.Equal(t, `"acme"`, send(e, get("acme.example.com")).Body.String())
	require.Equal(t, http.StatusNotFound, send(e, get("acme.example.com", "X-Member", "bravo")).Code)
}
