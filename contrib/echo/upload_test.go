package tenancyecho_test

import (
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/gorm-tenancy/tenancy/internal/notes"
)

func TestFilesOfAnUpload(t *testing.T) {
	e := echo.New()
	e.Use(newMiddleware(t, notes.New(t, "acme").BySubdomain()))
	e.POST("/", func(c *echo.Context) error {
		_, err := c.MultipartForm()
		return err
	})
	notes.Upload(t, e)
}
