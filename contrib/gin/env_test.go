package tenancygin_test

import (
	"net/http"
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

func newMiddleware(t testing.TB, cfg tenancyhttp.Config) gin.HandlerFunc {
	t.Helper()
	mw, err := tenancygin.New(cfg)
	require.NoError(t, err)
	return mw
}

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
