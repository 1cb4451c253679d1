package tenancyhttp_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

func TestError(t *testing.T) {
	type response struct {
		status int
		after  string
	}
	for err, want := range map[error]response{
		tenancy.ErrTenantNotFound:    {404, ""},
		tenancyhttp.ErrForbidden:     {404, ""},
		tenancyhttp.ErrUntrustedPeer: {403, ""},
		tenancy.ErrNoTenant:          {400, ""},
		tenancy.ErrInvalidTenant:     {400, ""},
		tenancy.ErrTenantSuspended:   {503, "60"},
		tenancy.ErrTenantBehind:      {503, "30"},
		tenancy.ErrUnavailable:       {503, "5"},
		tenancy.ErrPoolExhausted:     {503, "5"},
		tenancy.ErrClosed:            {503, "5"},
		context.DeadlineExceeded:     {503, "5"},
		context.Canceled:             {503, "5"},
		tenancy.ErrTenantMismatch:    {500, ""},
		tenancy.ErrWrongDatabase:     {500, ""},
		errBoom:                      {500, ""},
	} {
		for _, err := range []error{err,
			fmt.Errorf("the handler: %w", &tenancy.Error{Op: "query", Tenant: "s3cret", Err: err, Cause: errors.New("s3cret")})} {
			w := httptest.NewRecorder()
			w.Header().Set("Content-Length", "7")
			tenancyhttp.Error(w, get("/"), err)
			require.Equal(t, want, response{w.Code, w.Header().Get("Retry-After")}, "%v", err)
			require.NotContains(t, w.Body.String(), "s3cret")
			require.NotEmpty(t, w.Body.String())
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
			require.Empty(t, w.Header().Get("Content-Length"))
		}
	}
}

// compressed is what middleware that compresses hands on.
type compressed struct {
	http.ResponseWriter
	to io.Writer
}

func (w compressed) Write(p []byte) (int, error) { return w.to.Write(p) }

// Content-Encoding is of whoever compresses around the middleware.
func TestErrorWithinCompression(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Encoding", "gzip")
	to := gzip.NewWriter(w)
	tenancyhttp.Error(compressed{w, to}, get("/"), tenancy.ErrTenantNotFound)
	require.NoError(t, to.Close())
	require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
	body, err := gzip.NewReader(w.Body)
	require.NoError(t, err)
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	require.Equal(t, "tenant not found\n", string(text))
}

// Each response can be replaced, and one's headers alone.
func TestErrorsReplacesAResponse(t *testing.T) {
	cfg := tenancyhttp.Config{Source: subdomain,
		Check: func(_ context.Context, id string) error {
			return map[string]error{"gone": tenancy.ErrTenantNotFound, "closed": tenancy.ErrTenantSuspended}[id]
		},
		Errors: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, tenancy.ErrTenantNotFound) {
				http.Redirect(w, r, "https://example.com/", http.StatusSeeOther)
				return
			}
			w.Header().Set("Retry-After", "3600")
			tenancyhttp.Error(w, r, err)
		}}
	require.Equal(t, http.StatusSeeOther, serve(t, cfg, get("http://gone.example.com/")).Code)
	o := serve(t, cfg, get("http://closed.example.com/"))
	require.Equal(t, http.StatusServiceUnavailable, o.Code)
	require.Equal(t, "3600", o.Header().Get("Retry-After"))
}
