package tenancyhttp_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// through returns the tenant and the URL that a handler behind s gets.
func through(t *testing.T, s tenancyhttp.Source, r *http.Request) (id string, u *url.URL, ok bool) {
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: s, Authorize: tenancyhttp.Anyone})
	if err != nil {
		t.Fatal(err)
	}
	mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		id, ok = tenant.ID(r.Context())
		u = r.URL
		if !ok || tenant.Validate(id) != nil {
			t.Errorf("the handler was called for the tenant %q", id)
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
	return id, u, ok
}

// FuzzHost holds that the tenant of a host is in front of the base domain, that
// nothing but case, a dot and a port may differ, and that each of these forms of
// a host is the same tenant's.
func FuzzHost(f *testing.F) {
	for _, host := range []string{"acme.example.com", "ACME.example.com.:80", "[::1]:80", "a.b.example.com",
		"xn--mnchen-3ya.example.com", "acme.example.com:", ".example.com", "\u212a.example.com", "[fe80::1%25a]", "a%2e.example.com"} {
		f.Add(host)
	}
	source := tenancyhttp.Subdomain("example.com")
	f.Fuzz(func(t *testing.T, host string) {
		r := get("/")
		r.Host = host
		id, _, ok := through(t, source, r)
		if !ok {
			return
		}
		lower := id + ".example.com"
		// ASCII alone: of what is the same in Unicode only one is the host.
		if len(host) < len(lower) || asciiLower(host[:len(lower)]) != lower {
			t.Fatalf("%q is the host of %q", host, id)
		}
		if rest := strings.TrimPrefix(host[len(lower):], "."); rest != "" && (rest[0] != ':' || strings.Trim(rest[1:], "0123456789") != "") {
			t.Fatalf("%q has %q behind the domain", host, rest)
		}
		for _, same := range []string{lower, strings.ToUpper(lower), lower + ".", lower + ":8080", lower + ".:8080"} {
			r.Host = same
			if again, _, _ := through(t, source, r); again != id {
				t.Fatalf("%q is %q's, %q is %q's", host, id, same, again)
			}
		}
	})
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// FuzzPath holds that prefix, tenant and what the handler sees are the path as
// it was sent, and that Path and RawPath of what it sees belong together.
func FuzzPath(f *testing.F) {
	for _, path := range []string{"/t/acme/orders", "/t/acme", "/t/acme/", "/t/a%2Fb", "/t/acme/a%2Fb", "/t//acme", "//t/acme",
		"/t/../t/acme", "/t/acme/%2e%2e/bravo", "/t/acme/%zz", "/t/%61cme", "/t/acme;x=1", "/t/acme/ü", "*", ""} {
		f.Add(path)
	}
	source := tenancyhttp.PathPrefix("/t")
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path) // as net/http's server does
		if err != nil {
			return
		}
		r := get("/")
		r.URL = u
		sent := u.EscapedPath()
		id, seen, ok := through(t, source, r)
		if u.EscapedPath() != sent {
			t.Fatalf("%q became %q for those in front", sent, u.EscapedPath())
		}
		if !ok {
			return
		}
		rest := seen.EscapedPath()
		if whole := "/t/" + id + rest; whole != sent && whole != sent+"/" {
			t.Fatalf("%q is %q of %q", sent, rest, id)
		}
		if plain, err := url.PathUnescape(rest); err != nil || plain != seen.Path {
			t.Fatalf("%q: Path is %q and RawPath %q", sent, seen.Path, seen.RawPath)
		}
		if seen.RawPath != "" && seen.RawPath != rest {
			t.Fatalf("%q: RawPath %q is no encoding of Path %q", sent, seen.RawPath, seen.Path)
		}
		for segment := range strings.SplitSeq(seen.Path, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q has dot segments", sent)
			}
		}
	})
}
