package tenancyhttp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// first answers with the first note of the request's tenant.
func first(app *notes.App) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := app.First(r.Context())
		if err != nil {
			tenancyhttp.Error(w, r, err)
			return
		}
		_, _ = io.WriteString(w, text)
	})
}

// A tenant that is not served gets the same response from Check as from the
// handler's first statement.
func TestWithAndWithoutCheck(t *testing.T) {
	app := notes.New(t, "acme")
	for id, status := range map[string]int{"acme": 200, "nobody": 404, "closed": 503, "old": 503} {
		r := func() *http.Request { return get("http://" + id + ".example.com/") }
		began := false
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began = true
			first(app).ServeHTTP(w, r)
		})
		var responses []string
		for _, check := range []func(context.Context, string) error{nil, app.Plugin.Check} {
			began = false
			mw, err := tenancyhttp.New(tenancyhttp.Config{Source: subdomain, Authorize: tenancyhttp.Anyone, Check: check})
			require.NoError(t, err)
			w := httptest.NewRecorder()
			mw(handler).ServeHTTP(w, r())
			require.Equal(t, status, w.Code, id)
			require.Equal(t, status == 503, w.Header().Get("Retry-After") != "")
			require.Equal(t, check == nil || status == 200, began, id)
			responses = append(responses, fmt.Sprint(w.Header(), w.Body))
		}
		require.Equal(t, responses[0], responses[1])
	}
}

// A request may be over while its tenant is being looked for, with a cause of the
// application's own.
func TestOverBeforeTheTenantIsOpen(t *testing.T) {
	answers := make(chan struct{})
	plugin := tenancy.New(tenancy.Config{Resolver: tenancy.ResolverFunc(
		func(context.Context, string) (tenancy.Database, error) {
			<-answers
			return tenancy.Database{}, tenancy.ErrTenantNotFound
		})})
	defer func() {
		close(answers)
		require.NoError(t, plugin.Close(context.Background()))
	}()
	cancelled, cancel := context.WithCancelCause(context.Background())
	cancel(errBoom)
	late, cancel2 := context.WithDeadlineCause(context.Background(), time.Unix(0, 0), errBoom)
	defer cancel2()
	for reason, ctx := range map[error]context.Context{context.Canceled: cancelled, context.DeadlineExceeded: late} {
		o := serve(t, tenancyhttp.Config{Source: subdomain, Check: plugin.Check},
			get("http://acme.example.com/").WithContext(ctx))
		o.want(t, "", reason)
		require.ErrorIs(t, o.err, errBoom)
		require.Equal(t, http.StatusServiceUnavailable, o.Code)
	}
}

// Requests of several tenants at once, over connections that they share: each
// sees its own tenant's database.
func TestRequestsOfManyTenantsAtOnce(t *testing.T) {
	ids := []string{"acme", "bravo", "charlie"}
	app := notes.New(t, ids...)
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: subdomain, Authorize: tenancyhttp.Anyone, Check: app.Plugin.Check})
	require.NoError(t, err)
	server := httptest.NewServer(mw(first(app)))
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()

	want := map[string]string{"nobody": "404", "closed": "503", "old": "503"}
	for _, id := range ids {
		want[id] = "200 note of " + id
	}
	var wg sync.WaitGroup
	for range 4 {
		for id, want := range want {
			wg.Go(func() {
				for range 25 {
					got, err := fetch(client, server.URL, id+".example.com")
					if err != nil || got != want {
						t.Errorf("%s: %q, %v; want %q", id, got, err, want)
						return
					}
				}
			})
		}
	}
	wg.Wait()
}

// fetch returns the status, and the body if that is 200.
func fetch(client *http.Client, url, host string) (string, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	r.Host = host
	res, err := client.Do(r)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Sprint(res.StatusCode), err
	}
	return fmt.Sprintf("%d %s", res.StatusCode, body), err
}

// What net/http's server makes of requests that no client of ours would send.
func TestRequestsAsTheyAreSent(t *testing.T) {
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: subdomain, Authorize: tenancyhttp.Anyone})
	require.NoError(t, err)
	server := httptest.NewServer(mw(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := tenant.ID(r.Context())
		w.Header().Set("X-Got", id)
	})))
	defer server.Close()
	for name, tc := range map[string]struct {
		request string
		status  int
		id      string
	}{
		"plain":              {"GET / HTTP/1.1\r\nHost: acme.example.com\r\n", 200, "acme"},
		"two hosts":          {"GET / HTTP/1.1\r\nHost: acme.example.com\r\nHost: bravo.example.com\r\n", 400, ""},
		"no host":            {"GET / HTTP/1.0\r\n", 400, ""},
		"a host in the line": {"GET http://acme.example.com/ HTTP/1.1\r\nHost: bravo.example.com\r\n", 200, "acme"},
		"an escaped host":    {"GET / HTTP/1.1\r\nHost: acme%2eexample.com\r\n", 400, ""},
		"forwarded":          {"GET / HTTP/1.1\r\nHost: acme.example.com\r\nX-Forwarded-Host: bravo.example.com\r\n", 200, "acme"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			_, err = io.WriteString(conn, tc.request+"Connection: close\r\n\r\n")
			require.NoError(t, err)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			defer func() { _ = res.Body.Close() }()
			require.Equal(t, tc.status, res.StatusCode)
			require.Equal(t, tc.id, res.Header.Get("X-Got"))
		})
	}
}
