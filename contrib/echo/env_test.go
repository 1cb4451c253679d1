package tenancyecho_test

import (
	"net/http"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	tenancyecho "github.com/gorm-tenancy/tenancy/contrib/echo"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newMiddleware(t testing.TB, cfg tenancyhttp.Config) echo.MiddlewareFunc {
	t.Helper()
	mw, err := tenancyecho.New(cfg)
	require.NoError(t, err)
	return mw
}

// first answers with the first note of the request's tenant.
func first(app *notes.App) echo.HandlerFunc {
	return func(c *echo.Context) error {
		text, err := app.First(c.Request().Context())
		if err != nil {
			return err
		}
		return c.String(http.StatusOK, text)
	}
}
