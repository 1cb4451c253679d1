package tenancyhttp

import (
	"errors"
	"net/netip"
	"strings"
)

var errHost = errors.New("not a host")

// canonicalHost returns the one spelling of the host in a Host header: in lower
// case, without a port and without the dot at the end. An IP address is as
// netip.Addr writes it, without brackets. Names are not decoded: punycode stays
// as it is, and anything but a-z, 0-9, "-" and "_" in a label is an error.
func canonicalHost(hostport string) (host string, isIP bool, err error) {
	host, port := hostport, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", false, errHost
		}
		host, port = hostport[1:end], hostport[end+1:]
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || addr.Zone() != "" || !validPort(port) {
			return "", false, errHost
		}
		return addr.String(), true, nil
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		host, port = host[:i], host[i:]
	}
	host = strings.TrimSuffix(host, ".")
	if !validPort(port) || !validName(host) {
		return "", false, errHost
	}
	host = strings.ToLower(host) // of ASCII only: the Kelvin sign is k in lower case
	if last := host[len(host)-1]; last < '0' || last > '9' {
		return host, false, nil // no IPv4, without the error that says so
	}
	_, notIP := netip.ParseAddr(host)
	return host, notIP == nil, nil
}

// validPort reports whether s is empty, or a colon and digits, or none of them
// (RFC 3986, section 3.2.3).
func validPort(s string) bool {
	return s == "" || s[0] == ':' && len(s) <= len(":65535") && strings.Trim(s[1:], "0123456789") == ""
}

// validName reports whether s is made of labels of a domain's name, with the
// lengths of RFC 1035, section 2.3.4.
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			label++
		case c == '.' && label > 0:
			label = 0
			continue
		default:
			return false
		}
		if label > 63 {
			return false
		}
	}
	return label > 0
}
