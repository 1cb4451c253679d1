package notes

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// BySubdomain is a Config that asks a, and the header X-Member who may use what;
// without it everybody may.
func (a *App) BySubdomain() tenancyhttp.Config {
	return tenancyhttp.Config{
		Source: tenancyhttp.Subdomain("example.com"),
		Authorize: func(r *http.Request, id string) error {
			if of := r.Header.Get("X-Member"); of != "" && of != id {
				return fmt.Errorf("%w: a member of %s", tenancyhttp.ErrForbidden, of)
			}
			return nil
		},
		Check: a.Plugin.Check,
	}
}

// Get is a request for the host, with headers whose names and values alternate.
func Get(host string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "http://"+host+"/", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// Send has h answer r.
func Send(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Answer is all that a client sees.
func Answer(w *httptest.ResponseRecorder) string { return fmt.Sprint(w.Code, w.Header(), w.Body) }

// Refusal is a request that a middleware of Config must not let through.
type Refusal struct {
	Config     tenancyhttp.Config
	Request    *http.Request
	Status     int
	RetryAfter string
}

// Refusals are requests to refuse, by what is wrong. The app has the tenants
// acme and bravo.
func (a *App) Refusals() map[string]Refusal {
	host := a.BySubdomain()
	header := host
	header.Source = tenancyhttp.Header("X-Tenant", netip.MustParsePrefix("10.0.0.0/8"))
	failing := host
	failing.Authorize = func(*http.Request, string) error { return errors.New("s3cret") }
	pinned := Get("acme.example.com")
	pinned = pinned.WithContext(tenant.Pin(pinned.Context(), "bravo"))
	return map[string]Refusal{
		"missing":              {host, Get("example.com"), 400, ""},
		"invalid":              {host, Get("a.b.example.com"), 400, ""},
		"unknown":              {host, Get("nobody.example.com"), 404, ""},
		"forbidden":            {host, Get("acme.example.com", "X-Member", "bravo"), 404, ""},
		"suspended":            {host, Get("closed.example.com"), 503, "60"},
		"behind":               {host, Get("old.example.com"), 503, "30"},
		"pinned to another":    {host, pinned, 404, ""},
		"a hook that fails":    {failing, Get("acme.example.com"), 500, ""},
		"a header of a client": {header, Get("acme.example.com", "X-Tenant", "acme"), 403, ""},
		"an address in headers": {header, Get("acme.example.com", "X-Tenant", "acme",
			"X-Forwarded-For", "10.0.0.1", "X-Real-Ip", "10.0.0.1"), 403, ""},
	}
}

// ManyAtOnce sends requests of the tenants ids at once, over connections that they
// share, to h: a middleware of BySubdomain before handlers of POST / and POST
// /panic. The one adds the note "of <tenant> to <host>", the other panics, which is
// recovered. Each must have written into its own tenant's database.
func (a *App) ManyAtOnce(t *testing.T, h http.Handler, ids ...string) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	post := func(path, host string) int {
		r, err := http.NewRequest(http.MethodPost, server.URL+path, nil)
		if err != nil {
			return 0
		}
		r.Host = host
		res, err := client.Do(r)
		if err != nil {
			return 0
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		return res.StatusCode
	}
	want := map[string]map[string]int{
		"example.com":        {"/": 400, "/panic": 400},
		"nobody.example.com": {"/": 404, "/panic": 404},
		"closed.example.com": {"/": 503, "/panic": 503},
	}
	for _, id := range ids {
		want[id+".example.com"] = map[string]int{"/": 200, "/panic": 500}
	}
	const times = 25
	var wg sync.WaitGroup
	for host, statuses := range want {
		for path, want := range statuses {
			wg.Go(func() {
				for range times {
					if got := post(path, host); got != want {
						t.Errorf("%s%s: %d, want %d", host, path, got, want)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	for _, id := range ids {
		want := []string{"note of " + id}
		for range times {
			want = append(want, "of "+id+" to "+id+".example.com")
		}
		require.Equal(t, want, a.Raw(t, id))
	}
}

// Upload sends a file to the handler of POST /, which reads the form, and sees that
// net/http's server can remove it: it does so by the request that it has made.
func Upload(t *testing.T, h http.Handler) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://acme.example.com/", strings.NewReader(
		"--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nof acme\r\n--x--\r\n"))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	require.Equal(t, http.StatusOK, Send(h, r).Code)
	require.NotNil(t, r.MultipartForm)
	require.Contains(t, r.MultipartForm.File, "f")
}
