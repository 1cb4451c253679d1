package tenancyhttp_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

type Note struct {
	ID   uint
	Text string
}

// notes is an application with a database for each of ids, a tenant "closed"
// that is suspended and one "old" that is behind.
func notes(t *testing.T, ids ...string) (*gorm.DB, *tenancy.Plugin) {
	t.Helper()
	ctx := context.Background()
	dir := t.TempDir()
	tenants := tenancy.Static{}
	for _, id := range append(ids, "old") {
		path := filepath.Join(dir, id+".db")
		require.NoError(t, tenancysqlite.Create(ctx, path))
		tenants[id] = tenancy.Database{DSN: tenancysqlite.DSN(path), Server: "files", Schema: 2}
	}
	old := tenants["old"]
	old.Schema = 1
	tenants["old"] = old
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	suspended := tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
		if id == "closed" {
			return tenancy.Database{}, tenancy.ErrTenantSuspended
		}
		return tenancy.Database{}, tenancy.ErrTenantNotFound
	})
	plugin := tenancy.New(tenancy.Config{Engine: tenancysqlite.Engine{}, Schema: tenancy.SchemaRange{Min: 2},
		Resolver: tenancy.Chain(tenants, suspended)})
	require.NoError(t, db.Use(plugin))
	t.Cleanup(func() {
		require.NoError(t, plugin.Close(ctx))
		main, err := db.DB()
		require.NoError(t, err)
		require.NoError(t, main.Close())
	})
	for _, id := range ids {
		in := db.WithContext(tenant.Ctx(ctx, id))
		require.NoError(t, in.AutoMigrate(&Note{}))
		require.NoError(t, in.Create(&Note{Text: "note of " + id}).Error)
	}
	return db, plugin
}

// first answers with the first note of the request's tenant.
func first(db *gorm.DB) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n Note
		if err := db.WithContext(r.Context()).First(&n).Error; err != nil {
			tenancyhttp.Error(w, r, err)
			return
		}
		_, _ = io.WriteString(w, n.Text)
	})
}

// A tenant that is not served gets the same response from Check as from the
// handler's first statement.
func TestWithAndWithoutCheck(t *testing.T) {
	db, plugin := notes(t, "acme")
	for id, status := range map[string]int{"acme": 200, "nobody": 404, "closed": 503, "old": 503} {
		r := func() *http.Request { return get("http://" + id + ".example.com/") }
		began := false
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began = true
			first(db).ServeHTTP(w, r)
		})
		var responses []string
		for _, check := range []func(context.Context, string) error{nil, plugin.Check} {
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

// Requests of several tenants at once, over connections that they share: each
// sees its own tenant's database.
func TestRequestsOfManyTenantsAtOnce(t *testing.T) {
	ids := []string{"acme", "bravo", "charlie"}
	db, plugin := notes(t, ids...)
	mw, err := tenancyhttp.New(tenancyhttp.Config{Source: subdomain, Authorize: tenancyhttp.Anyone, Check: plugin.Check})
	require.NoError(t, err)
	server := httptest.NewServer(mw(first(db)))
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
