package tenancygin_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/gorm-tenancy/tenancy"
	tenancygin "github.com/gorm-tenancy/tenancy/contrib/gin"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func Example() {
	gin.SetMode(gin.ReleaseMode)
	tenants, err := tenancygin.New(tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain("example.com"),
		Authorize: tenancyhttp.Anyone,
		Check:     tenancyhttp.Resolves(tenancy.Static{"acme": {DSN: "acme.db"}}), // with a db, plugin.Check
	})
	if err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	r.Use(gin.Recovery(), tenants)
	r.GET("/orders", func(c *gin.Context) {
		id, _ := tenant.ID(c.Request.Context()) // what db.WithContext is given
		c.String(http.StatusOK, "orders of %s", id)
	})
	for _, host := range []string{"acme.example.com", "bravo.example.com", "example.com"} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://"+host+"/orders", nil))
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 orders of acme
	// 404 tenant not found
	// 400 the request names no tenant
}

// Routes with the tenant in their path.
func ExampleNew_pathPrefix() {
	gin.SetMode(gin.ReleaseMode)
	tenants, err := tenancygin.New(tenancyhttp.Config{
		Source:    tenancyhttp.PathPrefix("/t"),
		Authorize: tenancyhttp.Anyone,
	})
	if err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	r.Group("/t/:tenant", tenants).GET("/orders", func(c *gin.Context) {
		id, _ := tenant.ID(c.Request.Context())
		c.String(http.StatusOK, "%s of %s", c.Request.URL.Path, id)
	})
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/t/acme/orders", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 /orders of acme
}

// A handler answers for a tenant that was suspended since the middleware asked.
func ExampleError() {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.GET("/", func(c *gin.Context) {
		err := error(&tenancy.Error{Op: "query", Tenant: "acme", Err: tenancy.ErrTenantSuspended}) // a statement's
		tenancygin.Error(c, err)
	})
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(w.Code, w.Header().Get("Retry-After"), w.Body)
	// Output: 503 60 tenant suspended
}
