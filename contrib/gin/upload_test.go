package tenancygin_test

import (
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/notes"
)

func TestFilesOfAnUpload(t *testing.T) {
	e := gin.New()
	e.Use(newMiddleware(t, notes.New(t, "acme").BySubdomain()))
	e.POST("/", func(c *gin.Context) {
		_, err := c.MultipartForm()
		require.NoError(t, err)
	})
	notes.Upload(t, e)
}
