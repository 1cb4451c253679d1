package tenancystatus_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/tenancystatus"
)

func TestReadOnly(t *testing.T) {
	page := newPage(t, tenancystatus.Config{Plugin: newApp(t, 0).plugin})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "EVIL"} {
		w := get(page, method, "/")
		require.Equal(t, http.StatusMethodNotAllowed, w.Code, method)
		require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
	}
	whole := get(page, "GET", "/")
	require.Equal(t, http.StatusOK, whole.Code)
	require.Contains(t, whole.Body.String(), "<main")
	head := get(page, "HEAD", "/")
	require.Equal(t, http.StatusOK, head.Code)
	require.Empty(t, head.Body.String())
	require.NotEqual(t, "0", head.Header().Get("Content-Length"))
	require.Equal(t, whole.Header().Get("Content-Type"), head.Header().Get("Content-Type"))
}

func TestHeaders(t *testing.T) {
	page := newPage(t, tenancystatus.Config{Plugin: newApp(t, 0).plugin})
	for _, w := range []*httptest.ResponseRecorder{
		get(page, "GET", "/"), get(page, "HEAD", "/"), get(page, "GET", "/?format=json"), get(page, "POST", "/"), get(page, "GET", "/?format=xml"),
	} {
		h := w.Header()
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'", "connect-src 'self'"} {
			require.Contains(t, policy, want)
		}
		require.NotContains(t, policy, "unsafe")
		require.NotContains(t, policy, "http")
		require.NotContains(t, policy, "*")
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		require.Equal(t, "no-store", h.Get("Cache-Control"))
		require.Equal(t, "no-referrer", h.Get("Referrer-Policy"))
		require.Equal(t, "DENY", h.Get("X-Frame-Options"))
		require.Contains(t, h.Values("Vary"), "Accept")
	}
}

func TestFormats(t *testing.T) {
	page := newPage(t, tenancystatus.Config{Plugin: newApp(t, 0).plugin})
	const html, js = "text/html; charset=utf-8", "application/json"
	for _, tt := range []struct{ target, accept, want string }{
		{"/", "", html},
		{"/", "*/*", html},
		{"/", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", html},
		{"/", "text/html, application/json", html},
		{"/", "application/json", js},
		{"/", "Application/JSON;q=0.9, text/plain", js},
		{"/?format=json", "text/html", js},
		{"/?format=html", "application/json", html},
	} {
		w := get(page, "GET", tt.target, "Accept", tt.accept)
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, tt.want, w.Header().Get("Content-Type"), "%+v", tt)
	}
	require.Equal(t, http.StatusBadRequest, get(page, "GET", "/?format=xml").Code)
}

// relative finds what a page refers to.
var relative = regexp.MustCompile(`(?:href|src|action|srcset|data|poster|formaction)="([^"]*)"`)

// It works under any path, and refers to itself alone.
func TestAnyPath(t *testing.T) {
	page := newPage(t, tenancystatus.Config{Plugin: newApp(t, 0).plugin})
	mux := http.NewServeMux()
	mux.Handle("/admin/tenancy", page)
	mux.Handle("/admin/tenancy/", page)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", page))
	s := httptest.NewServer(mux)
	defer s.Close()
	for _, path := range []string{"/admin/tenancy", "/admin/tenancy/", "/stripped/"} {
		res, err := s.Client().Get(s.URL + path)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode, path)
		links := relative.FindAllStringSubmatch(string(body), -1)
		require.NotEmpty(t, links)
		for _, link := range links {
			require.Regexp(t, `^(\?.*|#.*|data:,)$`, link[1], path)
			if !strings.HasPrefix(link[1], "?") {
				continue
			}
			next, err := res.Request.URL.Parse(link[1])
			require.NoError(t, err)
			require.Equal(t, path, next.Path)
			answer, err := s.Client().Get(next.String())
			require.NoError(t, err)
			require.NoError(t, answer.Body.Close())
			require.Equal(t, http.StatusOK, answer.StatusCode)
		}
		require.False(t, bytes.Contains(body, []byte("http://")), "not even a namespace")
		require.False(t, bytes.Contains(body, []byte("https://")))
	}
}

// The history is there before anybody looks, and Close ends it.
func TestGathersUntilClose(t *testing.T) {
	page := newPage(t, tenancystatus.Config{Plugin: newApp(t, 0).plugin, Interval: 100 * time.Millisecond, History: 500 * time.Millisecond})
	require.Eventually(t, func() bool { return len(page.Report().History) >= 4 }, 30*time.Second, 10*time.Millisecond)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(page.Close)
	}
	wg.Wait()
	page.Close()
	last := page.Report().History
	require.LessOrEqual(t, len(last), 6)
	require.Equal(t, http.StatusOK, get(page, "GET", "/").Code, "it can still be served")
}

// Requests, statements and samples run at the same time.
func TestRequestsUnderLoad(t *testing.T) {
	a := newApp(t, 6, "north", "south")
	page := newPage(t, tenancystatus.Config{Plugin: a.plugin, Interval: 100 * time.Millisecond, History: time.Second})
	s := httptest.NewServer(page)
	defer s.Close()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 60 {
				if err := a.in(a.ids[(w+i)%len(a.ids)]).Exec("SELECT 1").Error; err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					a.plugin.Evict(a.ids[i%len(a.ids)])
				}
			}
		})
		wg.Go(func() {
			for range 15 {
				var r tenancystatus.Report
				res, err := s.Client().Get(s.URL + "?format=json")
				if err != nil {
					t.Error(err)
					return
				}
				if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
					t.Error(err)
				}
				_ = res.Body.Close()
				if w := get(page, "GET", "/"); w.Code != http.StatusOK {
					t.Error(w.Code)
				}
			}
		})
	}
	wg.Wait()
	r := page.Report()
	require.GreaterOrEqual(t, r.Pools.HitsTotal+r.Pools.MissesTotal, uint64(240), "one that met an eviction has looked twice")
}
