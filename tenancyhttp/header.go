package tenancyhttp

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gorm-tenancy/tenancy"
)

// Header takes the tenant from a header that a proxy or gateway sets.
//
// The trust contract: the proxies, at the trusted addresses, must set the header
// in every request, or remove it, so that a client's own never gets through.
// They must do so for each spelling that they pass on and that arrives as this
// name. A process that is on a trusted address can be any tenant.
//
// A request that has the header and does not come straight from a trusted
// address is refused with [ErrUntrustedPeer]; it is not taken for one without.
// The address is r.RemoteAddr: put no middleware in front that overwrites it
// with what a header says, as chi's RealIP does. More than one value is refused,
// and so is a list; an empty one is no tenant.
//
// At least one address is needed. 0.0.0.0/0 and ::/0 trust everybody who
// reaches the port.
func Header(name string, trusted ...netip.Prefix) Source {
	from, err := newPeers(trusted)
	key := http.CanonicalHeaderKey(name)
	switch {
	case err != nil:
		return Source{bad: err}
	case len(from) == 0:
		return Source{bad: fmt.Errorf("no address is trusted to set the header %q; name the proxies that overwrite it in every request", name)}
	case !isToken(name):
		return Source{bad: fmt.Errorf("%q can't be the name of a header", name)}
	case key == "Host":
		return Source{bad: errors.New("net/http keeps Host out of the headers; use Subdomain or Host")}
	}
	return Source{find: func(r *http.Request) (found, error) {
		values := r.Header[key]
		switch {
		case len(values) == 0:
			return found{}, nil
		case !from.trusts(r):
			return found{}, fmt.Errorf("%w: it sent %s", ErrUntrustedPeer, key)
		case len(values) > 1:
			return found{}, fmt.Errorf("%w: the header %s has %d values", tenancy.ErrInvalidTenant, key, len(values))
		}
		return found{id: values[0]}, nil
	}}
}

// isToken reports whether s is what RFC 9110, section 5.6.2, calls a token.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			return false
		}
		return !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}
