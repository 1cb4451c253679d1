package tenancyhttp_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

func TestPathPrefix(t *testing.T) {
	for target, want := range map[string]struct {
		rest   string
		reason error
	}{
		"/":                          {"", tenancy.ErrNoTenant},
		"/t":                         {"", tenancy.ErrNoTenant},
		"/t/":                        {"", tenancy.ErrNoTenant},
		"/t//acme":                   {"", tenancy.ErrNoTenant},
		"//t/acme":                   {"", tenancy.ErrNoTenant},
		"/T/acme":                    {"", tenancy.ErrNoTenant},
		"/tt/acme":                   {"", tenancy.ErrNoTenant},
		"/t%2Facme":                  {"", tenancy.ErrNoTenant},
		"/%74/acme":                  {"", tenancy.ErrNoTenant},
		"/x/../t/acme":               {"", tenancy.ErrNoTenant},
		"/t/acme%2Forders":           {"", tenancy.ErrInvalidTenant},
		"/t/%61cme/orders":           {"", tenancy.ErrInvalidTenant},
		"/t/acme%00":                 {"", tenancy.ErrInvalidTenant},
		"/t/acme%252Forders":         {"", tenancy.ErrInvalidTenant},
		"/t/ac.me":                   {"", tenancy.ErrInvalidTenant},
		"/t/acme;v=1/orders":         {"", tenancy.ErrInvalidTenant},
		"/t/../acme":                 {"", tenancy.ErrInvalidTenant},
		"/t/%2e%2e/acme":             {"", tenancy.ErrInvalidTenant},
		"/t/acme/../bravo/orders":    {"", tenancy.ErrInvalidTenant},
		"/t/acme/%2e%2E/bravo":       {"", tenancy.ErrInvalidTenant},
		"/t/acme/..%2fbravo":         {"", tenancy.ErrInvalidTenant},
		"/t/acme/./x":                {"", tenancy.ErrInvalidTenant},
		`/t/acme/..\bravo`:           {"", tenancy.ErrInvalidTenant}, // a slash where URLs are parsed as in browsers
		"/t/acme/..%5Cbravo":         {"", tenancy.ErrInvalidTenant},
		"/t/acme/..;v=1/bravo":       {"", tenancy.ErrInvalidTenant}, // no parameters where servlets are
		"/t/acme/.;/bravo":           {"", tenancy.ErrInvalidTenant},
		"/t/acme":                    {"/", nil},
		"/t/acme/":                   {"/", nil},
		"/t/acme/orders":             {"/orders", nil},
		"/t/acme//orders":            {"//orders", nil},
		"/t/acme/a%2Fb":              {"/a%2Fb", nil},
		"/t/acme/a%20b/%C3%BC?q=%2F": {"/a%20b/%C3%BC", nil},
		"/t/acme/t/bravo":            {"/t/bravo", nil},
		"/t/acme/...":                {"/...", nil},
		"/t/acme/a;..":               {"/a;..", nil},
		"/t/acme/a%5Cb":              {"/a%5Cb", nil},
	} {
		t.Run(target, func(t *testing.T) {
			for _, prefix := range []string{"/t", "/t/"} {
				r := get(target)
				query := r.URL.RawQuery
				before := *r.URL
				o := from(t, tenancyhttp.PathPrefix(prefix), r)
				o.want(t, "acme", want.reason)
				require.Equal(t, want.rest, o.path)
				require.Equal(t, before, *r.URL, "the request of others is left as it is")
				require.Equal(t, query, r.URL.RawQuery)
			}
		})
	}
}

func TestPathPrefixOfTheRoot(t *testing.T) {
	for _, prefix := range []string{"", "/"} {
		o := from(t, tenancyhttp.PathPrefix(prefix), get("/acme/orders"))
		o.want(t, "acme", nil)
		require.Equal(t, "/orders", o.path)
		from(t, tenancyhttp.PathPrefix(prefix), get("/")).want(t, "", tenancy.ErrNoTenant)
	}
}

// A URL that another middleware made may have a Path and a RawPath that do not
// belong together.
func TestPathPrefixOfURLsMadeByHand(t *testing.T) {
	for name, tc := range map[string]struct {
		path, raw string
		id, rest  string
		reason    error
	}{
		"RawPath of another path": {path: "/t/acme/x", raw: "/t/bravo/x", id: "acme", rest: "/x"},
		"RawPath without prefix":  {path: "/t/acme/a/b", raw: "/a%2Fb", id: "acme", rest: "/a/b"},
		"an escape in Path":       {path: "/t/a%63me", reason: tenancy.ErrInvalidTenant},
		"no Path":                 {raw: "/t/acme", reason: tenancy.ErrNoTenant},
		"the whole server":        {path: "*", reason: tenancy.ErrNoTenant},
	} {
		t.Run(name, func(t *testing.T) {
			r := get("/")
			r.URL = &url.URL{Path: tc.path, RawPath: tc.raw}
			o := from(t, tenancyhttp.PathPrefix("/t"), r)
			o.want(t, tc.id, tc.reason)
			require.Equal(t, tc.rest, o.path)
		})
	}
}

// A ServeMux behind the middleware routes by what is left.
func TestPathPrefixAroundAServeMux(t *testing.T) {
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: tenancyhttp.PathPrefix("/t"), Authorize: tenancyhttp.Anyone})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /files/{name}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.PathValue("name")))
	})
	w := httptest.NewRecorder()
	mw(mux).ServeHTTP(w, get("/t/acme/files/a%2Fb"))
	require.Equal(t, "a/b", w.Body.String())
}

func TestPathPrefixOfBadArguments(t *testing.T) {
	for _, prefix := range []string{"t", "//t", "/t//", "/../t", "/t/.", "/a b", "/t%2F", "/{tenant}", "https://example.com/t"} {
		_, err := tenancyhttp.New(tenancyhttp.Config{Source: tenancyhttp.PathPrefix(prefix), Authorize: tenancyhttp.Anyone})
		require.ErrorContains(t, err, "must begin with one slash", "%q", prefix)
	}
}
