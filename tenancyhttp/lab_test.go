package tenancyhttp_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBoom = errors.New("boom")

// proxy is where trusted requests come from.
var (
	proxy     = netip.MustParsePrefix("10.0.0.0/8")
	fromProxy = "10.1.2.3:4567"
)

// outcome is what became of a request.
type outcome struct {
	called bool
	id     string // in the handler's context
	path   string // that the handler saw, as sent
	err    error  // that Config.Errors got
	*httptest.ResponseRecorder
}

// serve sends r through the middleware of cfg.
func serve(t *testing.T, cfg tenancyhttp.Config, r *http.Request) outcome {
	t.Helper()
	var o outcome
	answer := cfg.Errors
	if answer == nil {
		answer = tenancyhttp.Error
	}
	cfg.Errors = func(w http.ResponseWriter, r *http.Request, err error) {
		o.err = err
		answer(w, r, err)
	}
	if cfg.Authorize == nil {
		cfg.Authorize = tenancyhttp.Anyone
	}
	mw, err := tenancyhttp.New(cfg)
	require.NoError(t, err)
	o.ResponseRecorder = httptest.NewRecorder()
	mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		o.called = true
		o.id, _ = tenant.ID(r.Context())
		o.path = r.URL.EscapedPath()
	})).ServeHTTP(o, r)
	require.NotEqual(t, o.called, o.err != nil, "a request is either served or refused")
	return o
}

// from serves a request by Source alone.
func from(t *testing.T, s tenancyhttp.Source, r *http.Request) outcome {
	t.Helper()
	return serve(t, tenancyhttp.Config{Source: s}, r)
}

func get(target string) *http.Request { return httptest.NewRequest(http.MethodGet, target, nil) }

// want requires that the request was served for id or, if that is "", refused
// as reason.
func (o outcome) want(t *testing.T, id string, reason error) {
	t.Helper()
	if reason == nil {
		require.NoError(t, o.err)
		require.True(t, o.called)
		require.Equal(t, id, o.id)
		return
	}
	require.ErrorIs(t, o.err, reason)
	var typed *tenancy.Error
	require.ErrorAs(t, o.err, &typed)
	require.NotEqual(t, http.StatusOK, o.Code)
}
