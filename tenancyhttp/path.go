package tenancyhttp

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorm-tenancy/tenancy"
)

// PathPrefix takes the tenant from the segment of the path behind prefix, and
// the handler gets the path without both, as from http.StripPrefix: with "/t",
// /t/acme/orders is acme's /orders, and /t/acme is acme's "/". "/" means that
// the tenant is the first segment.
//
// There is one spelling. prefix and id are compared as they were sent: with
// anything escaped in them (%61cme, acme%2Forders) they are no prefix and no id.
// A path with "." or ".." segments is refused, also escaped, behind a backslash
// or with parameters (..;v=1): proxies that clean it would see another tenant.
// What comes behind the id may have escaped slashes, and keeps them in RawPath.
//
// The path has to be stripped before the router looks at it: put the middleware
// around it, or in Use of chi's outermost router. Redirects that the handler
// makes of a path lack prefix and tenant, as behind http.StripPrefix.
func PathPrefix(prefix string) Source {
	prefix = strings.TrimSuffix(prefix, "/") + "/"
	if u := (&url.URL{Path: prefix}); prefix[0] != '/' || strings.Contains(prefix, "//") || hasDots(prefix) || u.EscapedPath() != prefix {
		return Source{bad: fmt.Errorf("the path prefix %q must begin with one slash and have plain segments", prefix)}
	}
	return Source{find: func(r *http.Request) (found, error) {
		escaped := r.URL.EscapedPath()
		rest, ok := strings.CutPrefix(escaped, prefix)
		if !ok {
			return found{}, nil
		}
		id, _, _ := strings.Cut(rest, "/")
		// Without escapes this is how Path begins too.
		n := len(prefix) + len(id)
		switch {
		case strings.Contains(id, "%") || !strings.HasPrefix(r.URL.Path, escaped[:n]):
			return found{id: id}, fmt.Errorf("%w: something is escaped in it", tenancy.ErrInvalidTenant)
		case hasDots(r.URL.Path):
			return found{id: id}, fmt.Errorf("%w: the path has dot segments", tenancy.ErrInvalidTenant)
		}
		u := *r.URL
		u.Path, u.RawPath = r.URL.Path[n:], ""
		if u.Path == "" {
			u.Path = "/"
		} else if r.URL.RawPath != "" {
			u.RawPath = escaped[n:]
		}
		return found{id, &u}, nil
	}}
}

// hasDots reports whether a segment of path is "." or ".." to anybody: a backslash
// is a slash to those who parse URLs as browsers do (WHATWG), and what comes
// behind a semicolon is no part of it to servlets.
func hasDots(path string) bool {
	for segment := range strings.FieldsFuncSeq(path, func(c rune) bool { return c == '/' || c == '\\' }) {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}
