package tenancyhttp_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

func TestHeader(t *testing.T) {
	source := tenancyhttp.Header("x-tenant", proxy, netip.MustParsePrefix("2001:db8::/64"))
	for name, tc := range map[string]struct {
		peer   string
		give   []string
		reason error
	}{
		"missing":                {fromProxy, nil, tenancy.ErrNoTenant},
		"missing, untrusted":     {"192.0.2.1:99", nil, tenancy.ErrNoTenant},
		"empty":                  {fromProxy, []string{""}, tenancy.ErrNoTenant},
		"two":                    {fromProxy, []string{"acme", "acme"}, tenancy.ErrInvalidTenant},
		"empty and one":          {fromProxy, []string{"", "acme"}, tenancy.ErrInvalidTenant},
		"a list":                 {fromProxy, []string{"acme,bravo"}, tenancy.ErrInvalidTenant},
		"forged":                 {fromProxy, []string{"acme'; DROP"}, tenancy.ErrInvalidTenant},
		"a path":                 {fromProxy, []string{"../acme"}, tenancy.ErrInvalidTenant},
		"untrusted":              {"192.0.2.1:99", []string{"acme"}, tenancyhttp.ErrUntrustedPeer},
		"untrusted and invalid":  {"192.0.2.1:99", []string{"/"}, tenancyhttp.ErrUntrustedPeer},
		"untrusted, empty":       {"192.0.2.1:99", []string{""}, tenancyhttp.ErrUntrustedPeer},
		"untrusted IPv6":         {"[2001:db8:0:1::1]:99", []string{"acme"}, tenancyhttp.ErrUntrustedPeer},
		"no port":                {"10.1.2.3", []string{"acme"}, tenancyhttp.ErrUntrustedPeer},
		"a socket":               {"", []string{"acme"}, tenancyhttp.ErrUntrustedPeer},
		"trusted":                {fromProxy, []string{"acme"}, nil},
		"trusted IPv6":           {"[2001:db8::1]:99", []string{"acme"}, nil},
		"trusted mapped address": {"[::ffff:10.9.9.9]:99", []string{"acme"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := get("/")
			r.RemoteAddr = tc.peer
			if tc.give != nil {
				r.Header["X-Tenant"] = tc.give
			}
			// What a peer may claim of itself counts for nothing.
			r.Header.Set("X-Forwarded-For", "10.1.2.3")
			r.Header.Set("X-Real-Ip", "10.1.2.3")
			o := from(t, source, r)
			o.want(t, "acme", tc.reason)
			if tc.reason == tenancyhttp.ErrUntrustedPeer {
				require.Equal(t, http.StatusForbidden, o.Code)
			}
		})
	}
}

// A header that nobody trusted set is refused on public routes too.
func TestHeaderOfAnUntrustedPeerOnAPublicRoute(t *testing.T) {
	r := get("/")
	r.Header.Set("X-Tenant", "acme")
	o := serve(t, tenancyhttp.Config{Source: tenancyhttp.Header("X-Tenant", proxy),
		Public: func(*http.Request) bool { return true }}, r)
	o.want(t, "", tenancyhttp.ErrUntrustedPeer)
}

func TestHeaderOfBadArguments(t *testing.T) {
	for mention, s := range map[string]tenancyhttp.Source{
		"no address is trusted": tenancyhttp.Header("X-Tenant"),
		"not set":               tenancyhttp.Header("X-Tenant", proxy, netip.Prefix{}),
		`"X Tenant"`:            tenancyhttp.Header("X Tenant", proxy),
		`""`:                    tenancyhttp.Header("", proxy),
		"keeps Host out":        tenancyhttp.Header("host", proxy),
	} {
		_, err := tenancyhttp.New(tenancyhttp.Config{Source: s, Authorize: tenancyhttp.Anyone})
		require.ErrorContains(t, err, mention)
	}
}
