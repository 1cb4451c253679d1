package tenancyhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Subdomain takes the tenant from the one label in front of the domain base: of
// acme.example.com with the base example.com, it is acme. Hosts are compared in
// lower case, without a port and a dot at the end, so ids with upper-case letters
// can't be reached. Punycode is not decoded: xn--mnchen-3ya is an id like any
// other. More than one label is refused. The base itself, another domain and an
// IP address name no tenant.
//
// A Host header is the client's own, and so is no proof of anything: it says
// which tenant is meant, and Config.Authorize who may use it.
//
// X-Forwarded-Host takes the place of Host in requests that come straight from
// the trusted addresses: those of proxies that overwrite it in every request.
// From others it is not looked at. More than one value is refused, and so is a
// list. See [Header] for how an address is known.
func Subdomain(base string, trusted ...netip.Prefix) Source {
	name, isIP, err := canonicalHost(base)
	if err != nil || isIP || strings.Contains(base, ":") {
		return Source{bad: fmt.Errorf("%q can't be the base domain of tenants; give a name such as example.com", base)}
	}
	suffix := "." + name
	return hostSource(trusted, func(_ *http.Request, host string, isIP bool) (string, error) {
		label, ok := strings.CutSuffix(host, suffix)
		if !ok || isIP {
			return "", nil
		}
		if strings.Contains(label, ".") {
			return label, fmt.Errorf("%w: it has more than one label", tenancy.ErrInvalidTenant)
		}
		return label, nil
	})
}

// Host asks look for the tenant of a host: for tenants that bring domains of
// their own. look gets the host in lower case, without a port and a dot at the
// end; an IPv6 address without brackets. It returns
// [tenancy.ErrTenantNotFound] for a host that it does not know, and "" or
// [tenancy.ErrNoTenant] for one that is the application's own, an address that
// health checks use for instance. It may return [tenancy.ErrTenantSuspended]; any
// other error is [tenancy.ErrUnavailable]. ctx is the request's, and means the
// main database.
//
// look is asked for every request, with any host that a client thinks of, before
// Config.Authorize: it should remember its answers, a bounded number of them. And
// what it answers is no secret.
//
// What [Subdomain] says of Host and X-Forwarded-Host goes for this too.
func Host(look func(ctx context.Context, host string) (id string, err error), trusted ...netip.Prefix) Source {
	if look == nil {
		return Source{bad: errors.New("its look-up is nil")}
	}
	return hostSource(trusted, func(r *http.Request, host string, _ bool) (string, error) {
		id, err := look(tenant.Main(r.Context()), host)
		switch {
		case err == nil, errors.Is(err, tenancy.ErrTenantNotFound), errors.Is(err, tenancy.ErrTenantSuspended), errors.Is(err, tenancy.ErrNoTenant):
			return id, err
		}
		return id, &tenancy.Error{Op: "http", Tenant: id, Err: tenancy.ErrUnavailable, Cause: err,
			Detail: "the tenant of the host can't be looked up"}
	})
}

func hostSource(trusted []netip.Prefix, tenantOf func(r *http.Request, host string, isIP bool) (string, error)) Source {
	from, err := newPeers(trusted)
	if err != nil {
		return Source{bad: err}
	}
	return Source{find: func(r *http.Request) (found, error) {
		sent := r.Host
		if forwarded := r.Header["X-Forwarded-Host"]; len(forwarded) > 0 && from.trusts(r) {
			if len(forwarded) > 1 {
				return found{}, fmt.Errorf("%w: X-Forwarded-Host has %d values", tenancy.ErrInvalidTenant, len(forwarded))
			}
			sent = forwarded[0]
		}
		if sent == "" { // as HTTP/1.0 allows
			return found{}, nil
		}
		host, isIP, err := canonicalHost(sent)
		if err != nil {
			return found{}, fmt.Errorf("%w: the host %q is none", tenancy.ErrInvalidTenant, sent)
		}
		id, err := tenantOf(r, host, isIP)
		return found{id: id}, err
	}}
}
