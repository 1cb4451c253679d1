package tenancyhttp_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// http.TimeoutHandler answers while the handler still runs, in front of the
// middleware and behind it. The handler goes on with its own tenant.
func TestTimeoutHandler(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	cfg := app.BySubdomain()
	cfg.Check = nil // may be too late itself, and then the handler never begins
	mw, err := tenancyhttp.New(cfg)
	require.NoError(t, err)
	late := make(chan string, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, _ := tenant.ID(r.Context()); id == "acme" {
			<-r.Context().Done()
			late <- id
			return
		}
		first(app).ServeHTTP(w, r)
	})
	const soon = 50 * time.Millisecond
	for name, h := range map[string]http.Handler{
		"in front": http.TimeoutHandler(mw(handler), soon, "too late"),
		"behind":   mw(http.TimeoutHandler(handler, soon, "too late")),
	} {
		got := notes.Send(h, notes.Get("acme.example.com"))
		require.Equal(t, http.StatusServiceUnavailable, got.Code, name)
		require.Equal(t, "too late", got.Body.String(), name)
		require.Equal(t, "acme", <-late, name)
	}
	// Others, who are in time.
	h := http.TimeoutHandler(mw(handler), time.Minute, "too late")
	require.Equal(t, "note of bravo", notes.Send(h, notes.Get("bravo.example.com")).Body.String())
	require.Equal(t, http.StatusNotFound, notes.Send(h, notes.Get("nobody.example.com")).Code)
}

// A handler that takes the connection over, as websockets do, gets the server's own
// ResponseWriter, and keeps its tenant for as long as it talks.
func TestHijack(t *testing.T) {
	app := notes.New(t, "acme")
	mw, err := tenancyhttp.New(app.BySubdomain())
	require.NoError(t, err)
	server := httptest.NewServer(mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			if line == "suspend\n" {
				app.Suspend("acme")
			}
			text, err := app.First(r.Context())
			_, _ = fmt.Fprintf(rw, "%s %v\n", text, err)
			_ = rw.Flush()
		}
	})))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReader(conn)
	say := func(text string) string {
		_, err := io.WriteString(conn, text)
		require.NoError(t, err)
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		return line
	}
	require.Equal(t, "note of acme <nil>\n", say("GET / HTTP/1.1\r\nHost: acme.example.com\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello\n"))
	require.Equal(t, "note of acme <nil>\n", say("again\n"))
	require.Contains(t, say("suspend\n"), "tenant suspended", "each statement is asked for anew")
}

// A proxy behind PathPrefix passes on the path without the tenant: what is behind
// must be told of it in another way, by a header that the proxy sets for instance.
func TestReverseProxyBehind(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.RequestURI, " ", r.Header["X-Tenant"])
	}))
	defer backend.Close()
	to, err := url.Parse(backend.URL)
	require.NoError(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		id, _ := tenant.ID(r.In.Context())
		r.Out.Header.Set("X-Tenant", id)
	}}
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: tenancyhttp.PathPrefix("/t"), Authorize: tenancyhttp.Anyone})
	require.NoError(t, err)
	r := get("http://example.com/t/acme/a%2Fb?q=1")
	r.Header["X-Tenant"] = []string{"bravo", "charlie"} // a client's own
	require.Equal(t, "/a%2Fb?q=1 [acme]", notes.Send(mw(proxy), r).Body.String())
}
