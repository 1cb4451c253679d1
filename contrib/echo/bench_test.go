package tenancyecho_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

// BenchmarkMiddleware is a request whose handler does nothing, without and with
// the middleware. What tenancyhttp costs by itself is in bench.
func BenchmarkMiddleware(b *testing.B) {
	tenants := newMiddleware(b, tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain("example.com"),
		Authorize: tenancyhttp.Anyone,
		Check:     func(context.Context, string) error { return nil },
	})
	for name, use := range map[string][]echo.MiddlewareFunc{"plain": nil, "tenancy": {tenants}} {
		b.Run(name, func(b *testing.B) {
			served := 0
			e := echo.New()
			e.Use(use...)
			e.GET("/", func(*echo.Context) error { served++; return nil })
			r, w := notes.Get("acme.example.com"), &nothing{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				e.ServeHTTP(w, r)
			}
			if served == 0 {
				b.Fatal("no request was served")
			}
		})
	}
}

// nothing is a ResponseWriter that keeps nothing.
type nothing struct{ header http.Header }

func (w *nothing) Header() http.Header         { return w.header }
func (w *nothing) Write(p []byte) (int, error) { return len(p), nil }
func (w *nothing) WriteHeader(int)             {}
