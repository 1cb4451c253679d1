package bench

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// httpSources are the middlewares that are measured, each with a request that
// it finds acme in.
func httpSources(check func(context.Context, string) error) (names []string, sources map[string]func(http.Handler) http.Handler, r *http.Request) {
	r = httptest.NewRequest(http.MethodGet, "http://acme.example.com/t/acme/orders", nil)
	r.Header.Set("X-Tenant", "acme")
	r.RemoteAddr = "10.1.2.3:4567"
	claim := func(*http.Request) (string, error) { return "acme", nil }
	look := func(context.Context, string) (string, error) { return "acme", nil }
	sources = map[string]func(http.Handler) http.Handler{
		"none": func(h http.Handler) http.Handler { return h },
		// What an application would write by hand, without any check.
		"pin only": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r.WithContext(tenant.Pin(r.Context(), "acme")))
			})
		},
	}
	names = []string{"none", "pin only"}
	add := func(name string, cfg tenancyhttp.Config) {
		cfg.Authorize = tenancyhttp.Anyone
		mw, err := tenancyhttp.New(cfg)
		if err != nil {
			panic(err)
		}
		sources[name] = mw
		names = append(names, name)
	}
	add("subdomain", tenancyhttp.Config{Source: tenancyhttp.Subdomain("example.com")})
	add("host", tenancyhttp.Config{Source: tenancyhttp.Host(look)})
	add("path", tenancyhttp.Config{Source: tenancyhttp.PathPrefix("/t")})
	add("header", tenancyhttp.Config{Source: tenancyhttp.Header("X-Tenant", netip.MustParsePrefix("10.0.0.0/8"))})
	add("claim", tenancyhttp.Config{Source: tenancyhttp.Claim(claim)})
	add("subdomain and check", tenancyhttp.Config{Source: tenancyhttp.Subdomain("example.com"), Check: check})
	return names, sources, r
}

// BenchmarkHTTP is what the middleware adds to a request whose handler does
// nothing, by its Source, and with the plugin asked whether the tenant is served.
func BenchmarkHTTP(b *testing.B) {
	plugin := tenancy.New(tenancy.Config{Resolver: tenancy.Static{"acme": {Connector: &null{name: "acme"}}}})
	defer func() { _ = plugin.Close(context.Background()) }()
	if err := plugin.Check(context.Background(), "acme"); err != nil {
		b.Fatal(err)
	}
	names, sources, r := httpSources(plugin.Check)
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			served := 0
			h := sources[name](http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
			if served == 0 || w.Code != http.StatusOK {
				b.Fatalf("the handler was called %d times, and the answer is %d", served, w.Code)
			}
		})
	}
}
