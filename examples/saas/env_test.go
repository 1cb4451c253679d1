package main

import (
	"context"
	"database/sql"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"github.com/gorm-tenancy/tenancy/internal/browser"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) {
	passwordCost = bcrypt.MinCost
	goleak.VerifyTestMain(pgtest.Main(browser.Main(m)))
}

// server is the application, served on the loopback interface.
type server struct {
	t      *testing.T
	app    *app
	engine engine
	addr   string
}

// engines runs test on SQLite and on PostgreSQL.
func engines(t *testing.T, test func(t *testing.T, s *server)) {
	t.Run("sqlite", func(t *testing.T) { test(t, serveSQLite(t, t.TempDir())) })
	t.Run("postgres", func(t *testing.T) {
		c := pgtest.Shared(t)
		e, err := onPostgres(c.DSN(c.CreateDatabase(t)))
		require.NoError(t, err)
		s := newServer(t, e)
		test(t, s)
	})
}

func serveSQLite(t *testing.T, dir string) *server {
	t.Helper()
	e, err := onSQLite(t.Context(), dir)
	require.NoError(t, err)
	return newServer(t, e)
}

func newServer(t *testing.T, e engine) *server {
	t.Helper()
	a, err := open(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)), e, config{base: "localhost", operator: "sesame"})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		assert.NoError(t, a.close(ctx))
	})
	require.NoError(t, err)
	handler, err := a.handler()
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, handler) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	return &server{t: t, app: a, engine: e, addr: listener.Addr().String()}
}

// at is the URL of a path at a tenant's address, at the first page's for "".
func (s *server) at(label, path string) string {
	_, port, _ := net.SplitHostPort(s.addr)
	host := "localhost"
	if label != "" {
		host = label + ".localhost"
	}
	return "http://" + net.JoinHostPort(host, port) + path
}

// wait waits until done says so.
func (s *server) wait(what string, done func() bool) {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline:
			s.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// user is a person with a browser, without its pages.
type user struct {
	s      *server
	client *http.Client
}

func (s *server) user() *user {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(s.t, err)
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.addr) // whatever the name
	}}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &user{s, &http.Client{Jar: jar, Transport: transport, Timeout: 30 * time.Second}}
}

// answer is what came back, after redirects.
type answer struct {
	status int
	url    string
	header http.Header
	body   string
}

func (u *user) do(r *http.Request) answer {
	u.s.t.Helper()
	resp, err := u.client.Do(r)
	require.NoError(u.s.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(u.s.t, err)
	return answer{resp.StatusCode, resp.Request.URL.String(), resp.Header, string(body)}
}

func (u *user) get(url string) answer {
	u.s.t.Helper()
	r, err := http.NewRequestWithContext(u.s.t.Context(), http.MethodGet, url, nil)
	require.NoError(u.s.t, err)
	return u.do(r)
}

// send sends a form, given as names and values by turns.
func (u *user) send(to string, fields ...string) answer {
	u.s.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r, err := http.NewRequestWithContext(u.s.t.Context(), http.MethodPost, to, strings.NewReader(form.Encode()))
	require.NoError(u.s.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return u.do(r)
}

// signUp makes the tenant id, with an owner whose password is the company's name,
// and signs in.
func (u *user) signUp(id, company, plan string) {
	u.s.t.Helper()
	got := u.send(u.s.at("", "/signup"), "address", id, "company", company, "email", "owner@"+id+".test",
		"password", "password of "+id, "plan", plan)
	require.Equal(u.s.t, http.StatusOK, got.status, got.body)
	require.Equal(u.s.t, u.s.at(id, "/login?new"), got.url)
	got = u.send(u.s.at(id, "/login"), "email", "owner@"+id+".test", "password", "password of "+id)
	require.Equal(u.s.t, http.StatusOK, got.status, got.body)
	require.Equal(u.s.t, u.s.at(id, "/"), got.url)
}

func (u *user) order(id, title, amount string) answer {
	u.s.t.Helper()
	return u.send(u.s.at(id, "/orders"), "title", title, "amount", amount)
}

// raw reads one column of a tenant's database, or of main's for "", through a
// connection that the application knows nothing of.
func (s *server) raw(id, query string) (values []string) {
	s.t.Helper()
	db, err := s.app.db.DB()
	require.NoError(s.t, err)
	if id != "" {
		place, err := s.app.tenants.Resolve(tenant.Main(s.t.Context()), id)
		require.NoError(s.t, err)
		connector := place.Connector
		if connector == nil {
			connector, err = s.engine.Connector(place.DSN)
			require.NoError(s.t, err)
		}
		db = sql.OpenDB(connector)
		defer func() { _ = db.Close() }()
	}
	rows, err := db.QueryContext(s.t.Context(), query)
	require.NoError(s.t, err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var value string
		require.NoError(s.t, rows.Scan(&value))
		values = append(values, value)
	}
	require.NoError(s.t, rows.Err())
	return values
}
