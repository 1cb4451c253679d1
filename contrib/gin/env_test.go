package tenancygin_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	tenancygin "github.com/gorm-tenancy/tenancy/contrib/gin"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	goleak.VerifyTestMain(m)
}

// bySubdomain is a Config that asks app, and the header X-Member who may use what;
// without it everybody may.
func bySubdomain(app *notes.App) tenancyhttp.Config {
	return tenancyhttp.Config{
		Source: tenancyhttp.Subdomain("example.com"),
		Authorize: func(r *http.Request, id string) error {
			if of := r.Header.Get("X-Member"); of != "" && of != id {
				return fmt.Errorf("%w: a member of %s", tenancyhttp.ErrForbidden, of)
			}
			return nil
		},
		Check: app.Plugin.Check,
	}
}

func newMiddleware(t testing.TB, cfg tenancyhttp.Config) gin.HandlerFunc {
	t.Helper()
	mw, err := tenancygin.New(cfg)
	require.NoError(t, err)
	return mw
}

// get is a request for the host, with headers whose names and values
// alternate.
func get(host string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://"+host+"/", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func send(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// answer is all that a client sees.
func answer(w *httptest.ResponseRecorder) string { return fmt.Sprint(w.Code, w.Header(), w.Body) }

// first answers with the first note of the request's tenant.
func first(app *notes.App) gin.HandlerFunc {
	return func(c *gin.Context) {
		text, err := app.First(c.Request.Context())
		if err != nil {
			tenancygin.Error(c, err)
			return
		}
		c.String(http.StatusOK, text)
	}
}
