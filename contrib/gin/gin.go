// Package tenancygin is package tenancyhttp as middleware of gin: the same
// Config, the same checks in the same order, the same answers.
//
//	tenants, err := tenancygin.New(tenancyhttp.Config{
//		Source:    tenancyhttp.Subdomain("example.com"),
//		Authorize: mayUse, // func(r *http.Request, id string) error
//		Check:     plugin.Check,
//	})
//	...
//	r := gin.New()
//	r.Use(gin.Logger(), gin.Recovery(), authenticate, tenants)
//	r.GET("/orders", func(c *gin.Context) {
//		var orders []Order
//		if err := db.WithContext(c.Request.Context()).Find(&orders).Error; err != nil {
//			tenancygin.Error(c, err)
//			return
//		}
//		c.JSON(http.StatusOK, orders)
//	})
//
// # The context
//
// The tenant is in c.Request.Context(), and that is what to give to GORM. c is a
// context too, but never give it to a statement:
//
//   - it sees the request's values only where Engine.ContextWithFallback is true;
//     without that the statement is [tenancy.ErrNoTenant];
//   - with it, there is a data race: gin uses c for another request when the
//     handler has returned, and database/sql may look at a statement's context
//     later (Rows.awaitDone). A goroutine that has kept c is then at work for the
//     other request's tenant.
//
// For the same reason what goes on after the handler takes the context out of c
// before its go statement, or has c.Copy(), which keeps its request:
//
//	ctx := context.WithoutCancel(c.Request.Context())
//	go sendMail(ctx)
//
// # Paths
//
// gin has matched the route before any middleware runs, and so before
// tenancyhttp.PathPrefix has taken prefix and tenant off the path. Either the
// routes have both, as in r.Group("/t/:tenant", tenants) for PathPrefix("/t"), or
// tenancyhttp.New goes around the engine, which is an http.Handler.
//
// # Addresses
//
// Whose headers are believed is a matter of Config.Source, and of the address of
// the connection. Engine.SetTrustedProxies and c.ClientIP are about something
// else, and have no say in it.
package tenancygin

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

// New returns the middleware of cfg. It may be used for several engines, groups
// and routes.
//
// A request that is refused is answered by cfg.Errors, no later handler runs, and
// it is not recorded in c.Errors: middleware that shows those to clients would tell
// them what the answer doesn't, and a tenant that may not be used from one that
// doesn't exist. To log it, do so in cfg.Errors, and have it call [tenancyhttp.Error].
func New(cfg tenancyhttp.Config) (gin.HandlerFunc, error) {
	middleware, err := tenancyhttp.New(cfg)
	if err != nil {
		return nil, err
	}
	return func(c *gin.Context) {
		admitted := false
		// Deferred: gin goes on with the next handler after a panic in this one, if
		// the recovery in front does not abort.
		defer func() {
			if !admitted {
				c.Abort()
			}
		}()
		middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c.Request, admitted = r, true
			c.Next() // here, as tenancyhttp has something to do after the handlers
		})).ServeHTTP(c.Writer, c.Request)
	}, nil
}

// Error answers with what err means to a client, as [tenancyhttp.Error] does, and
// aborts. Handlers call it with the error of a statement: the tenant may have been
// suspended since the middleware asked. Like [New] it leaves c.Errors alone.
func Error(c *gin.Context, err error) {
	tenancyhttp.Error(c.Writer, c.Request, err)
	c.Abort()
}
