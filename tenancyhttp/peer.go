package tenancyhttp

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
)

// peers are the addresses of proxies whose headers are believed.
type peers []netip.Prefix

func newPeers(trusted []netip.Prefix) (peers, error) {
	for _, p := range trusted {
		switch {
		case !p.IsValid():
			return nil, errors.New("a trusted netip.Prefix is not set; make it with netip.MustParsePrefix")
		case p.Addr().Is4In6():
			return nil, fmt.Errorf("the trusted prefix %s never matches; write it as one of IPv4", p)
		}
	}
	return slices.Clone(trusted), nil
}

// trusts reports whether r comes straight from one of them. An address that
// can't be read, a Unix socket's for instance, is trusted by nobody.
func (ps peers) trusts(r *http.Request) bool {
	if len(ps) == 0 {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	// A socket that listens on both has IPv4's addresses as IPv6's.
	addr := peer.Addr().Unmap()
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(addr) })
}
