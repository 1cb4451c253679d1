package tenancyhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// show answers with the tenant of the request and the path that is left.
var show = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	id, _ := tenant.ID(r.Context())
	fmt.Fprintf(w, "%q %s", id, r.URL.Path)
})

// middleware is New, for examples whose Config is good.
func middleware(cfg tenancyhttp.Config) func(http.Handler) http.Handler {
	mw, err := tenancyhttp.New(cfg)
	if err != nil {
		panic(err)
	}
	return mw
}

// send prints what h answers.
func send(h http.Handler, r *http.Request) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
}

func ExampleSubdomain() {
	h := middleware(tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain("example.com"),
		Authorize: tenancyhttp.Anyone,
	})(show)
	send(h, get("http://Acme.example.com:8080/orders"))
	send(h, get("http://example.com/orders"))
	// Output:
	// 200 "acme" /orders
	// 400 the request names no tenant
}

func ExampleHost() {
	domains := map[string]string{"shop.acme.org": "acme"}
	h := middleware(tenancyhttp.Config{
		Source: tenancyhttp.Host(func(_ context.Context, host string) (string, error) {
			id, ok := domains[host]
			if !ok {
				return "", tenancy.ErrTenantNotFound
			}
			return id, nil
		}),
		Authorize: tenancyhttp.Anyone,
	})(show)
	send(h, get("http://shop.acme.org/orders"))
	send(h, get("http://shop.bravo.org/orders"))
	// Output:
	// 200 "acme" /orders
	// 404 tenant not found
}

func ExamplePathPrefix() {
	mux := http.NewServeMux() // its patterns know nothing of tenants
	mux.Handle("GET /orders", show)
	h := middleware(tenancyhttp.Config{
		Source:    tenancyhttp.PathPrefix("/t"),
		Authorize: tenancyhttp.Anyone,
	})(mux)
	send(h, get("/t/acme/orders"))
	send(h, get("/t/acme%2Forders"))
	// Output:
	// 200 "acme" /orders
	// 400 the request names no valid tenant
}

func ExampleHeader() {
	h := middleware(tenancyhttp.Config{
		// The gateways at 10.0.0.0/24 overwrite it in every request.
		Source:    tenancyhttp.Header("X-Tenant", netip.MustParsePrefix("10.0.0.0/24")),
		Authorize: tenancyhttp.Anyone, // the gateway has authorised
	})(show)
	r := get("/orders")
	r.Header.Set("X-Tenant", "acme")
	r.RemoteAddr = "10.0.0.7:52110"
	send(h, r)
	r.RemoteAddr = "203.0.113.9:52110"
	send(h, r)
	// Output:
	// 200 "acme" /orders
	// 403 forbidden
}

type tokenKey struct{}

// token is what the application's authentication has verified.
type token struct{ User, Tenant string }

func ExampleClaim() {
	h := middleware(tenancyhttp.Config{
		Source: tenancyhttp.Claim(func(r *http.Request) (string, error) {
			t, _ := r.Context().Value(tokenKey{}).(token)
			return t.Tenant, nil
		}),
	})(show)
	r := get("/orders")
	send(h, r.WithContext(context.WithValue(r.Context(), tokenKey{}, token{User: "ann", Tenant: "acme"})))
	send(h, r)
	// Output:
	// 200 "acme" /orders
	// 400 the request names no tenant
}

func ExampleFunc() {
	h := middleware(tenancyhttp.Config{
		Source: tenancyhttp.Func(func(r *http.Request) (string, error) {
			return r.URL.Query().Get("tenant"), nil // a client's word: Authorize has to judge it
		}),
		Authorize: tenancyhttp.Anyone,
	})(show)
	send(h, get("/orders?tenant=acme"))
	// Output: 200 "acme" /orders
}

func ExampleConfig_authorize() {
	members := map[string][]string{"ann": {"acme"}}
	h := middleware(tenancyhttp.Config{
		Source: tenancyhttp.Subdomain("example.com"),
		Authorize: func(r *http.Request, id string) error {
			t, _ := r.Context().Value(tokenKey{}).(token)
			for _, of := range members[t.User] {
				if of == id {
					return nil
				}
			}
			return tenancyhttp.ErrForbidden
		},
	})(show)
	ann := func(r *http.Request) *http.Request {
		return r.WithContext(context.WithValue(r.Context(), tokenKey{}, token{User: "ann"}))
	}
	send(h, ann(get("http://acme.example.com/")))
	send(h, ann(get("http://bravo.example.com/"))) // whether bravo exists or not
	// Output:
	// 200 "acme" /
	// 404 tenant not found
}

func ExampleConfig_public() {
	h := middleware(tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain("example.com"),
		Authorize: tenancyhttp.Anyone,
		Public:    func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	})(show)
	send(h, get("http://10.0.0.7/healthz"))
	// Output: 200 "" /healthz
}

func ExampleConfig_errors() {
	h := middleware(tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain("example.com"),
		Authorize: tenancyhttp.Anyone,
		Check: tenancyhttp.Resolves(tenancy.ResolverFunc(func(context.Context, string) (tenancy.Database, error) {
			return tenancy.Database{}, tenancy.ErrTenantSuspended
		})),
		Errors: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, tenancy.ErrTenantSuspended) {
				http.Error(w, "please pay your invoice", http.StatusPaymentRequired)
				return
			}
			tenancyhttp.Error(w, r, err)
		},
	})(show)
	send(h, get("http://acme.example.com/"))
	// Output: 402 please pay your invoice
}

// A handler answers for the database what the middleware could not know.
func ExampleError() {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := error(&tenancy.Error{Op: "query", Tenant: "acme", Err: tenancy.ErrTenantBehind}) // a statement's
		tenancyhttp.Error(w, r, err)
	})
	send(h, get("/"))
	// Output: 503 tenant is being upgraded
}
