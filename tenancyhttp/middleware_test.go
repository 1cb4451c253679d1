package tenancyhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

var subdomain = tenancyhttp.Subdomain("example.com")

// principal is what an authenticating middleware puts into the context.
type principal struct{ tenant string }

type principalKey struct{}

func as(r *http.Request, id string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), principalKey{}, principal{id}))
}

func claimed(r *http.Request) (string, error) {
	p, _ := r.Context().Value(principalKey{}).(principal)
	return p.tenant, nil
}

func member(r *http.Request, id string) error {
	if mine, _ := claimed(r); mine != id {
		return fmt.Errorf("%w: the principal is %q", tenancyhttp.ErrForbidden, mine)
	}
	return nil
}

func TestNewRefuses(t *testing.T) {
	for mention, cfg := range map[string]tenancyhttp.Config{
		"Source is not set":           {Authorize: tenancyhttp.Anyone},
		"Authorize is not set":        {Source: subdomain},
		"Source: its function is nil": {Source: tenancyhttp.Claim(nil)},
		"its function is nil":         {Source: tenancyhttp.Func(nil), Authorize: tenancyhttp.Anyone},
	} {
		mw, err := tenancyhttp.New(cfg)
		require.ErrorContains(t, err, "tenancyhttp: Config.")
		require.ErrorContains(t, err, mention)
		require.Nil(t, mw)
	}
	_, err := tenancyhttp.New(tenancyhttp.Config{Source: tenancyhttp.Claim(claimed)})
	require.NoError(t, err, "a claim is the authorisation")
}

func TestAuthorizeIsAskedBeforeTheLookUp(t *testing.T) {
	var checked []string
	cfg := tenancyhttp.Config{
		Source:    subdomain,
		Authorize: member,
		Check: func(_ context.Context, id string) error {
			checked = append(checked, id)
			return nil
		},
	}
	for _, host := range []string{"bravo", "nobody"} {
		o := serve(t, cfg, as(get("http://"+host+".example.com/"), "acme"))
		o.want(t, "", tenancyhttp.ErrForbidden)
		require.ErrorContains(t, o.err, "tenant "+host)
	}
	serve(t, cfg, get("http://acme.example.com/")).want(t, "", tenancyhttp.ErrForbidden)
	require.Empty(t, checked)
	serve(t, cfg, as(get("http://acme.example.com/"), "acme")).want(t, "acme", nil)
	require.Equal(t, []string{"acme"}, checked)
}

// Who may not use a tenant gets what anybody gets for one that isn't there,
// to the last header.
func TestARefusalLooksLikeAnUnknownTenant(t *testing.T) {
	responseOf := func(cfg tenancyhttp.Config, r *http.Request) string {
		o := serve(t, cfg, r)
		require.False(t, o.called)
		return fmt.Sprint(o.Code, o.Header(), o.Body)
	}
	unknown := responseOf(tenancyhttp.Config{Source: subdomain,
		Check: tenancyhttp.Resolves(tenancy.Static{})}, get("http://bravo.example.com/"))
	require.Contains(t, unknown, "404")
	suspended := func(context.Context, string) error { return tenancy.ErrTenantSuspended }
	require.Equal(t, unknown, responseOf(tenancyhttp.Config{Source: subdomain, Authorize: member, Check: suspended},
		as(get("http://bravo.example.com/"), "acme")))
	require.Equal(t, unknown, responseOf(tenancyhttp.Config{Source: subdomain,
		Authorize: func(*http.Request, string) error {
			return fmt.Errorf("%w: %w", tenancy.ErrTenantSuspended, tenancyhttp.ErrForbidden)
		}}, get("http://bravo.example.com/")))
	r := get("http://bravo.example.com/")
	require.Equal(t, unknown, responseOf(tenancyhttp.Config{Source: subdomain, Check: suspended},
		r.WithContext(tenant.Pin(r.Context(), "acme"))))
}

func TestErrorsOfHooks(t *testing.T) {
	request := func() *http.Request { return get("http://acme.example.com/") }
	o := serve(t, tenancyhttp.Config{Source: subdomain, Authorize: func(*http.Request, string) error { return errBoom }}, request())
	o.want(t, "", errBoom)
	require.Equal(t, http.StatusInternalServerError, o.Code)
	require.NotContains(t, o.Body.String(), "boom")

	o = serve(t, tenancyhttp.Config{Source: tenancyhttp.Func(func(*http.Request) (string, error) { return "", errBoom }),
		Public: func(*http.Request) bool { return true }}, request())
	o.want(t, "", errBoom)

	o = serve(t, tenancyhttp.Config{Source: subdomain, Check: tenancyhttp.Resolves(tenancy.ResolverFunc(
		func(ctx context.Context, id string) (tenancy.Database, error) {
			_, named := tenant.ID(ctx)
			require.False(t, named, "a Resolver reads the main database")
			return tenancy.Database{}, errBoom
		}))}, request())
	o.want(t, "", tenancy.ErrUnavailable)
	require.Equal(t, http.StatusServiceUnavailable, o.Code)
}

func TestAnotherTenantInTheContext(t *testing.T) {
	for name, ctx := range map[string]context.Context{
		"pinned":       tenant.Pin(context.Background(), "bravo"),
		"not pinned":   tenant.Ctx(context.Background(), "bravo"),
		"behind main":  tenant.Main(tenant.Pin(context.Background(), "bravo")),
		"a conflict":   tenant.Ctx(tenant.Pin(context.Background(), "acme"), "bravo"),
		"another case": tenant.Pin(context.Background(), "ACME"),
	} {
		t.Run(name, func(t *testing.T) {
			asked := false
			o := serve(t, tenancyhttp.Config{Source: subdomain,
				Authorize: func(*http.Request, string) error { asked = true; return nil }},
				get("http://acme.example.com/").WithContext(ctx))
			o.want(t, "", tenancy.ErrTenantMismatch)
			require.ErrorIs(t, o.err, tenancyhttp.ErrForbidden)
			require.False(t, asked)
		})
	}
	for name, ctx := range map[string]context.Context{
		"the same": tenant.Pin(context.Background(), "acme"),
		"main":     tenant.Main(context.Background()),
		"invalid":  tenant.Ctx(context.Background(), "no/id"),
	} {
		t.Run(name, func(t *testing.T) {
			from(t, subdomain, get("http://acme.example.com/").WithContext(ctx)).want(t, "acme", nil)
		})
	}
}

// Two sources that have to agree are two middlewares.
func TestTokenOfAnotherTenant(t *testing.T) {
	claim, err := tenancyhttp.New(tenancyhttp.Config{Source: tenancyhttp.Claim(claimed)})
	require.NoError(t, err)
	host, err := tenancyhttp.New(tenancyhttp.Config{Source: subdomain, Authorize: tenancyhttp.Anyone})
	require.NoError(t, err)
	h := claim(host(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })))
	for id, want := range map[string]int{"acme": http.StatusTeapot, "bravo": http.StatusNotFound, "": http.StatusBadRequest, "a/b": http.StatusBadRequest} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, as(get("http://acme.example.com/"), id))
		require.Equal(t, want, w.Code, id)
	}
}

func TestThePinHolds(t *testing.T) {
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: subdomain, Authorize: tenancyhttp.Anyone})
	require.NoError(t, err)
	mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, ok := tenant.ID(tenant.Ctx(r.Context(), "bravo"))
		require.False(t, ok)
	})).ServeHTTP(httptest.NewRecorder(), get("http://acme.example.com/"))
}

func TestPublic(t *testing.T) {
	cfg := tenancyhttp.Config{Source: subdomain, Authorize: member,
		Public: func(r *http.Request) bool { return r.URL.Path == "/health" },
		Check:  tenancyhttp.Resolves(tenancy.Static{"acme": {DSN: "x"}})}
	serve(t, cfg, get("http://10.0.0.1/health")).want(t, "", nil)
	serve(t, cfg, get("http://10.0.0.1/")).want(t, "", tenancy.ErrNoTenant)
	// A request that names a tenant is like any other.
	serve(t, cfg, as(get("http://acme.example.com/health"), "acme")).want(t, "acme", nil)
	serve(t, cfg, get("http://acme.example.com/health")).want(t, "", tenancyhttp.ErrForbidden)
	serve(t, cfg, as(get("http://nobody.example.com/health"), "nobody")).want(t, "", tenancy.ErrTenantNotFound)
	serve(t, cfg, get("http://a.b.example.com/health")).want(t, "", tenancy.ErrInvalidTenant)
}

func TestClaim(t *testing.T) {
	s := tenancyhttp.Claim(claimed)
	from(t, s, as(get("/"), "acme")).want(t, "acme", nil)
	from(t, s, get("/")).want(t, "", tenancy.ErrNoTenant)
	from(t, s, as(get("/"), "a b")).want(t, "", tenancy.ErrInvalidTenant)
	unverified := tenancyhttp.Claim(func(*http.Request) (string, error) {
		return "acme", fmt.Errorf("%w: the token has no tenant", tenancyhttp.ErrForbidden)
	})
	from(t, unverified, get("/")).want(t, "", tenancyhttp.ErrForbidden)
}
