package tenancyecho_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/notes"
)

// net/http's server removes the files of an upload by the request that it has
// made, so it must know of them.
func TestFilesOfAnUpload(t *testing.T) {
	e := echo.New()
	e.Use(newMiddleware(t, bySubdomain(notes.New(t, "acme"))))
	e.POST("/", func(c *echo.Context) error {
		_, err := c.MultipartForm()
		return err
	})
	r := httptest.NewRequest(http.MethodPost, "http://acme.example.com/", strings.NewReader(
		"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nof acme\r\n--x--\r\n"))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	require.Equal(t, http.StatusOK, send(e, r).Code)
	require.NotNil(t, r.MultipartForm)
	require.Contains(t, r.MultipartForm.File, "f")
}
