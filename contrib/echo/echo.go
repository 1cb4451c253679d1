// Package tenancyecho is package tenancyhttp as middleware of echo (v5): the same
// Config, the same checks in the same order, the same statuses.
//
//	tenants, err := tenancyecho.New(tenancyhttp.Config{
//		Source:    tenancyhttp.Subdomain("example.com"),
//		Authorize: mayUse, // func(r *http.Request, id string) error
//		Check:     plugin.Check,
//	})
//	...
//	e := echo.New()
//	e.Use(middleware.RequestLogger(), middleware.Recover(), authenticate, tenants)
//	e.GET("/orders", func(c *echo.Context) error {
//		var orders []Order
//		if err := db.WithContext(c.Request().Context()).Find(&orders).Error; err != nil {
//			return err
//		}
//		return c.JSON(http.StatusOK, orders)
//	})
//
// # Errors
//
// A request that is refused is an error, which echo's HTTPErrorHandler answers as
// it does others: by default in JSON, with the status, Retry-After and words of
// [tenancyhttp.Error]. So is an error of this module's that the handler returns:
// the tenant may have been suspended since the middleware asked. Errors that have a
// status, and those of anything else, are left as they are.
//
// A handler or middleware in front finds the reason by errors.Is and errors.As,
// the status by echo.StatusCode, and an *echo.HTTPError. echo's own handler tells
// clients nothing of the reason, even where it is made to expose errors; one of
// your own must not either.
//
// With Config.Errors set, that one answers what is refused, and HTTPErrorHandler
// does not hear of it.
//
// # The context
//
// The tenant is in c.Request().Context(). echo uses c again for another request, of
// another tenant maybe, once the handler has returned. So take the context out of
// c before a go statement whose work goes on after that:
//
//	ctx := context.WithoutCancel(c.Request().Context())
//	go sendMail(ctx)
//
// # Paths and addresses
//
// tenancyhttp.PathPrefix takes prefix and tenant off the path before the route is
// matched where the middleware is given to e.Pre. After that, in Use or a group,
// the routes must have both, as in e.Group("/t/:tenant", tenants) for
// PathPrefix("/t").
//
// Whose headers are believed is a matter of Config.Source, and of the address of
// the connection. Echo.IPExtractor and c.RealIP have no say in it.
//
// # Version 4
//
// echo v4 adapts tenancyhttp by itself. What is refused is answered by
// Config.Errors then, in plain text by default, and handlers map their errors:
//
//	tenants, err := tenancyhttp.New(cfg)
//	...
//	e.Use(echo.WrapMiddleware(tenants))
package tenancyecho

import (
	"net/http"

	"github.com/labstack/echo/v5"

	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

// New returns the middleware of cfg, for Echo.Use, Echo.Pre, groups and routes. It
// may be used several times.
func New(cfg tenancyhttp.Config) (echo.MiddlewareFunc, error) {
	answers := cfg.Errors != nil
	if !answers {
		cfg.Errors = func(w http.ResponseWriter, _ *http.Request, err error) { w.(*recorder).err = err }
	}
	middleware, err := tenancyhttp.New(cfg)
	if err != nil {
		return nil, err
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			var err error
			admitted := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				c.SetRequest(r)
				err = mapped(c, next(c))
			})
			if answers {
				middleware(admitted).ServeHTTP(c.Response(), c.Request())
				return err
			}
			var refused recorder
			middleware(admitted).ServeHTTP(&refused, c.Request())
			if refused.err != nil {
				return newHTTPError(c, refused.err)
			}
			return err
		}
	}, nil
}
