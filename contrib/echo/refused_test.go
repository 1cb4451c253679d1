package tenancyecho_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	for name, tc := range app.Refusals() {
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
			}, newMiddleware(t, tc.Config))
			e.GET("/", reach)
			got := notes.Send(e, tc.Request)
			require.False(t, reached)
			require.Equal(t, tc.Status, got.Code)
			require.Equal(t, tc.RetryAfter, got.Header().Get("Retry-After"))

			plain, err := tenancyhttp.New(tc.Config)
			require.NoError(t, err)
			want := notes.Send(plain(http.NotFoundHandler()), tc.Request)
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
			require.Equal(t, tc.Status, echo.StatusCode(seen))
			var he *echo.HTTPError
			require.ErrorAs(t, seen, &he)
			require.Equal(t, tc.Status, he.Code)
			require.Equal(t, reason.Error(), seen.Error())
		})
	}
	require.Equal(t, []string{"note of acme"}, app.Raw(t, "acme"))
}

// Who may not use a tenant gets what anybody gets for one that isn't there, also
// where echo is made to expose errors.
func TestARefusalLooksLikeAnUnknownTenant(t *testing.T) {
	cfg := notes.New(t, "acme").BySubdomain()
	for _, expose := range []bool{false, true} {
		e := echo.New()
		e.HTTPErrorHandler = echo.DefaultHTTPErrorHandler(expose)
		e.Use(newMiddleware(t, cfg))
		require.Equal(t, notes.Answer(notes.Send(e, notes.Get("nobody.example.com"))),
			notes.Answer(notes.Send(e, notes.Get("acme.example.com", "X-Member", "bravo"))))
	}
}

// Config.Errors answers in echo's place, and with echo's own ResponseWriter.
func TestErrorsReplacesAResponse(t *testing.T) {
	cfg := notes.New(t, "acme").BySubdomain()
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
	require.Equal(t, http.StatusSeeOther, notes.Send(e, notes.Get("nobody.example.com")).Code)
	require.Equal(t, "tenant suspended\n", notes.Send(e, notes.Get("closed.example.com")).Body.String())
	require.False(t, reached)
	require.Equal(t, http.StatusOK, notes.Send(e, notes.Get("acme.example.com")).Code)
	require.True(t, reached)
}

func TestAPanicOfAHookRefuses(t *testing.T) {
	cfg := notes.New(t, "acme").BySubdomain()
	cfg.Authorize = func(*http.Request, string) error { panic("boom") }
	var reached bool
	e := echo.New()
	e.Use(middleware.Recover(), newMiddleware(t, cfg))
	e.GET("/", func(*echo.Context) error { reached = true; return nil })
	require.Equal(t, http.StatusInternalServerError, notes.Send(e, notes.Get("acme.example.com")).Code)
	require.False(t, reached)
}

func TestPublic(t *testing.T) {
	cfg := notes.New(t, "acme").BySubdomain()
	cfg.Public = func(r *http.Request) bool { return r.URL.Path == "/" }
	e := echo.New()
	e.Use(newMiddleware(t, cfg))
	e.GET("/", func(c *echo.Context) error {
		id, _ := tenant.ID(c.Request().Context())
		return c.String(http.StatusOK, fmt.Sprintf("%q", id))
	})
	require.Equal(t, `""`, notes.Send(e, notes.Get("example.com")).Body.String())
	require.Equal(t, `"acme"`, notes.Send(e, notes.Get("acme.example.com")).Body.String())
	require.Equal(t, http.StatusNotFound, notes.Send(e, notes.Get("acme.example.com", "X-Member", "bravo")).Code)
}
