package tenancyhttp_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestSubdomain(t *testing.T) {
	long := "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" // 63
	for host, want := range map[string]struct {
		id     string
		reason error
	}{
		"":                           {"", tenancy.ErrNoTenant},
		"example.com":                {"", tenancy.ErrNoTenant},
		"example.com.:80":            {"", tenancy.ErrNoTenant},
		"acme.example.org":           {"", tenancy.ErrNoTenant},
		"acmeexample.com":            {"", tenancy.ErrNoTenant},
		"acme.example.com.evil.org":  {"", tenancy.ErrNoTenant},
		"10.0.0.7:8080":              {"", tenancy.ErrNoTenant},
		"[::1]":                      {"", tenancy.ErrNoTenant},
		"[2001:db8::1]:443":          {"", tenancy.ErrNoTenant},
		".example.com":               {"", tenancy.ErrInvalidTenant},
		"a.b.example.com":            {"", tenancy.ErrInvalidTenant},
		"acme..example.com":          {"", tenancy.ErrInvalidTenant},
		"acme.example.com..":         {"", tenancy.ErrInvalidTenant},
		"-acme.example.com":          {"", tenancy.ErrInvalidTenant},
		"_acme.example.com":          {"", tenancy.ErrInvalidTenant},
		"a%63me.example.com":         {"", tenancy.ErrInvalidTenant},
		"münchen.example.com":        {"", tenancy.ErrInvalidTenant},
		"acme。example.com":           {"", tenancy.ErrInvalidTenant}, // IDNA's other full stop
		"\u212acme.example.com":      {"", tenancy.ErrInvalidTenant}, // the Kelvin sign is k in lower case
		"acme.example.com:80:80":     {"", tenancy.ErrInvalidTenant},
		"acme.example.com:http":      {"", tenancy.ErrInvalidTenant},
		"acme.example.com/x":         {"", tenancy.ErrInvalidTenant},
		"evil@acme.example.com":      {"", tenancy.ErrInvalidTenant},
		"acme.example.com, b":        {"", tenancy.ErrInvalidTenant},
		"acme.example.com\x00":       {"", tenancy.ErrInvalidTenant},
		"::1":                        {"", tenancy.ErrInvalidTenant},
		"[::1":                       {"", tenancy.ErrInvalidTenant},
		"[::1]x":                     {"", tenancy.ErrInvalidTenant},
		"[fe80::1%25eth0]":           {"", tenancy.ErrInvalidTenant},
		"[10.0.0.7]":                 {"", tenancy.ErrInvalidTenant},
		"[acme].example.com":         {"", tenancy.ErrInvalidTenant},
		long + "a.example.com":       {"", tenancy.ErrInvalidTenant},
		"acme.example.com":           {"acme", nil},
		"ACME.Example.COM":           {"acme", nil},
		"acme.example.com.":          {"acme", nil},
		"acme.example.com:8080":      {"acme", nil},
		"acme.example.com.:8080":     {"acme", nil},
		"acme.example.com:":          {"acme", nil},
		"a-b_c.example.com":          {"a-b_c", nil},
		"127.example.com":            {"127", nil},
		"xn--mnchen-3ya.example.com": {"xn--mnchen-3ya", nil},
		long + ".example.com":        {long, nil},
	} {
		t.Run(host, func(t *testing.T) {
			r := get("/")
			r.Host = host
			from(t, tenancyhttp.Subdomain("Example.com."), r).want(t, want.id, want.reason)
		})
	}
}

func TestForwardedHost(t *testing.T) {
	for name, tc := range map[string]struct {
		peer   string
		give   []string
		id     string
		reason error
	}{
		"none":            {peer: fromProxy, id: "direct"},
		"one":             {fromProxy, []string{"acme.example.com"}, "acme", nil},
		"mapped address":  {"[::ffff:10.1.2.3]:99", []string{"acme.example.com"}, "acme", nil},
		"upper case":      {fromProxy, []string{"ACME.EXAMPLE.COM.:443"}, "acme", nil},
		"another domain":  {fromProxy, []string{"acme.example.org"}, "", tenancy.ErrNoTenant},
		"a list":          {fromProxy, []string{"acme.example.com, bravo.example.com"}, "", tenancy.ErrInvalidTenant},
		"two":             {fromProxy, []string{"acme.example.com", "acme.example.com"}, "", tenancy.ErrInvalidTenant},
		"empty":           {fromProxy, []string{""}, "", tenancy.ErrNoTenant},
		"untrusted":       {"192.0.2.1:99", []string{"acme.example.com"}, "direct", nil},
		"untrusted, two":  {"192.0.2.1:99", []string{"a", "b"}, "direct", nil},
		"IPv6":            {"[::1]:99", []string{"acme.example.com"}, "direct", nil},
		"without a port":  {"10.1.2.3", []string{"acme.example.com"}, "direct", nil},
		"a socket":        {"@", []string{"acme.example.com"}, "direct", nil},
		"no peer":         {"", []string{"acme.example.com"}, "direct", nil},
		"spelled by hand": {"10.1.2.3:4567, 192.0.2.1:99", []string{"acme.example.com"}, "direct", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := get("http://direct.example.com/")
			r.RemoteAddr = tc.peer
			r.Header["X-Forwarded-Host"] = tc.give
			from(t, tenancyhttp.Subdomain("example.com", proxy), r).want(t, tc.id, tc.reason)
		})
	}
	r := get("http://direct.example.com/")
	r.RemoteAddr = fromProxy
	r.Header.Set("X-Forwarded-Host", "acme.example.com")
	r.Header.Set("Forwarded", "host=acme.example.com")
	from(t, tenancyhttp.Subdomain("example.com"), r).want(t, "direct", nil)
}

func TestHost(t *testing.T) {
	var asked []string
	look := func(ctx context.Context, host string) (string, error) {
		asked = append(asked, host)
		_, named := tenant.ID(ctx)
		require.False(t, named, "the look-up is in the main database")
		switch host {
		case "orders.acme.test", "2001:db8::1", "192.0.2.7", "xn--mnchen-3ya.test":
			return "acme", nil
		case "own.test":
			return "", nil
		case "down.test":
			return "", errBoom
		case "bad.test":
			return "no/id", nil
		case "closed.test":
			return "", tenancy.ErrTenantSuspended
		}
		return "", tenancy.ErrTenantNotFound
	}
	source := tenancyhttp.Host(look, proxy)
	for host, want := range map[string]struct {
		asked  string
		reason error
	}{
		"":                          {"", tenancy.ErrNoTenant},
		"a b":                       {"", tenancy.ErrInvalidTenant},
		"münchen.test":              {"", tenancy.ErrInvalidTenant},
		"orders.acme.test@":         {"", tenancy.ErrInvalidTenant},
		"[::1%25lo]":                {"", tenancy.ErrInvalidTenant},
		"nobody.test":               {"nobody.test", tenancy.ErrTenantNotFound},
		"own.test":                  {"own.test", tenancy.ErrNoTenant},
		"down.test":                 {"down.test", tenancy.ErrUnavailable},
		"bad.test":                  {"bad.test", tenancy.ErrInvalidTenant},
		"closed.test":               {"closed.test", tenancy.ErrTenantSuspended},
		"orders.acme.test":          {"orders.acme.test", nil},
		"Orders.ACME.test.:8443":    {"orders.acme.test", nil},
		"xn--Mnchen-3ya.test":       {"xn--mnchen-3ya.test", nil},
		"192.0.2.7:80":              {"192.0.2.7", nil},
		"[2001:DB8:0:0::1]:443":     {"2001:db8::1", nil},
		"[2001:db8:0:0:0:0:0:0001]": {"2001:db8::1", nil},
	} {
		t.Run(host, func(t *testing.T) {
			asked = nil
			r := get("/")
			r.Host = host
			from(t, source, r).want(t, "acme", want.reason)
			if want.asked == "" {
				require.Empty(t, asked, "a host is validated before the look-up")
			} else {
				require.Equal(t, []string{want.asked}, asked)
			}
		})
	}
	r := get("http://own.test/")
	r.RemoteAddr = fromProxy
	r.Header.Set("X-Forwarded-Host", "orders.acme.test")
	from(t, source, r).want(t, "acme", nil)
	r.RemoteAddr = "192.0.2.1:1"
	from(t, source, r).want(t, "", tenancy.ErrNoTenant)
}

func TestHostSourcesOfBadArguments(t *testing.T) {
	for mention, s := range map[string]tenancyhttp.Source{
		`""`:                      tenancyhttp.Subdomain(""),
		`"example.com:80"`:        tenancyhttp.Subdomain("example.com:80"),
		`"[::1]"`:                 tenancyhttp.Subdomain("[::1]"),
		`"10.0.0.1"`:              tenancyhttp.Subdomain("10.0.0.1"),
		`"*.example.com"`:         tenancyhttp.Subdomain("*.example.com"),
		"netip.MustParsePrefix":   tenancyhttp.Subdomain("example.com", netip.Prefix{}),
		"write it as one of IPv4": tenancyhttp.Subdomain("example.com", netip.MustParsePrefix("::ffff:10.0.0.0/104")),
		"look-up is nil":          tenancyhttp.Host(nil),
	} {
		_, err := tenancyhttp.New(tenancyhttp.Config{Source: s, Authorize: tenancyhttp.Anyone})
		require.ErrorContains(t, err, "tenancyhttp: Config.Source: ")
		require.ErrorContains(t, err, mention)
	}
}
