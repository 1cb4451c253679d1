package tenancyecho_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/labstack/echo/v5"

	"github.com/gorm-tenancy/tenancy"
	tenancyecho "github.com/gorm-tenancy/tenancy/contrib/echo"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func Example() {
	tenants, err := tenancyecho.New(tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain("example.com"),
		Authorize: tenancyhttp.Anyone,
		Check:     tenancyhttp.Resolves(tenancy.Static{"acme": {DSN: "acme.db"}}), // with a db, plugin.Check
	})
	if err != nil {
		log.Fatal(err)
	}
	e := echo.New()
	e.Use(tenants)
	e.GET("/orders", func(c *echo.Context) error {
		id, _ := tenant.ID(c.Request().Context()) // what db.WithContext is given
		return c.String(http.StatusOK, "orders of "+id+"\n")
	})
	for _, host := range []string{"acme.example.com", "bravo.example.com", "example.com"} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://"+host+"/orders", nil))
		fmt.Print(w.Code, " ", w.Body)
	}
	// Output:
	// 200 orders of acme
	// 404 {"message":"tenant not found"}
	// 400 {"message":"the request names no tenant"}
}

// Pre takes the tenant off the path before echo looks for the route.
func ExampleNew_pathPrefix() {
	tenants, err := tenancyecho.New(tenancyhttp.Config{
		Source:    tenancyhttp.PathPrefix("/t"),
		Authorize: tenancyhttp.Anyone,
	})
	if err != nil {
		log.Fatal(err)
	}
	e := echo.New()
	e.Pre(tenants)
	e.GET("/orders", func(c *echo.Context) error {
		id, _ := tenant.ID(c.Request().Context())
		return c.String(http.StatusOK, "orders of "+id)
	})
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/t/acme/orders", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 200 orders of acme
}
