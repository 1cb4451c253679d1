// Package routertest holds docs/web.md to its word on routers that take net/http
// middleware as it is.
package routertest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/gorilla/mux"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func newMiddleware(t *testing.T, source tenancyhttp.Source) func(http.Handler) http.Handler {
	t.Helper()
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: source, Authorize: tenancyhttp.Anyone})
	require.NoError(t, err)
	return mw
}

// listOrders answers with the tenant that it lists the orders of.
func listOrders(w http.ResponseWriter, r *http.Request) {
	id, _ := tenant.ID(r.Context())
	_, _ = io.WriteString(w, id)
}

// want requires the status of a GET and, if that is 200, that it was served for
// acme.
func want(t *testing.T, status int, h http.Handler, target string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	require.Equal(t, status, w.Code)
	if status == http.StatusOK {
		require.Equal(t, "acme", w.Body.String())
	}
}

func TestChi(t *testing.T) {
	byHost := chi.NewRouter()
	byHost.Use(newMiddleware(t, tenancyhttp.Subdomain("example.com")))
	byHost.Get("/orders", listOrders)
	want(t, http.StatusOK, byHost, "http://acme.example.com/orders")
	want(t, http.StatusBadRequest, byHost, "http://example.com/orders")

	byPath := newMiddleware(t, tenancyhttp.PathPrefix("/t"))
	outermost := chi.NewRouter()
	outermost.Use(byPath)
	outermost.Get("/orders", listOrders)
	want(t, http.StatusOK, outermost, "/t/acme/orders")
	want(t, http.StatusBadRequest, outermost, "/orders")

	sub := chi.NewRouter()
	sub.Use(byPath)
	sub.Get("/orders", listOrders)
	outer := chi.NewRouter()
	outer.Mount("/", sub)
	want(t, http.StatusNotFound, outer, "/t/acme/orders")
}

func TestMux(t *testing.T) {
	byPath := newMiddleware(t, tenancyhttp.PathPrefix("/t"))
	around := mux.NewRouter()
	around.HandleFunc("/orders", listOrders)
	want(t, http.StatusOK, byPath(around), "/t/acme/orders")
	want(t, http.StatusBadRequest, byPath(around), "/orders")

	within := mux.NewRouter()
	within.Use(byPath)
	within.HandleFunc("/orders", listOrders)
	want(t, http.StatusNotFound, within, "/t/acme/orders")

	byHost := mux.NewRouter()
	byHost.Use(newMiddleware(t, tenancyhttp.Subdomain("example.com")))
	byHost.HandleFunc("/orders", listOrders)
	want(t, http.StatusOK, byHost, "http://acme.example.com/orders")
	want(t, http.StatusBadRequest, byHost, "http://example.com/orders")
}
