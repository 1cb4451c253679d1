package main

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestTwoTenants(t *testing.T) {
	engines(t, func(t *testing.T, s *server) {
		acme, bravo := s.user(), s.user()
		acme.signUp("acme", "Acme & Sons", "pro")
		bravo.signUp("bravo", "Bravo", "free")
		assert.Equal(t, http.StatusOK, acme.order("acme", "an anvil", "12.30").status)
		assert.Equal(t, http.StatusOK, bravo.order("bravo", "a bridge", "9.99").status)
		assert.Equal(t, http.StatusOK, acme.order("acme", "a rocket", "100").status)

		page := acme.get(s.at("acme", "/")).body
		assert.Contains(t, page, "<h1>Acme &amp; Sons</h1>")
		assert.Contains(t, page, "Plan Pro: 2 of 1000 orders")
		assert.Contains(t, page, "an anvil")
		assert.Contains(t, page, "12.30")
		assert.NotContains(t, page, "bridge")
		page = bravo.get(s.at("bravo", "/")).body
		assert.Contains(t, page, "Plan Free: 1 of 3 orders")
		assert.NotContains(t, page, "anvil")

		year := time.Now().Format("2006")
		for id, want := range map[string][]string{"acme": {year + "-0001", year + "-0002"}, "bravo": {year + "-0001"}} {
			s.wait("invoices of "+id, func() bool {
				return slices.Equal(want, s.raw(id, "SELECT number FROM invoices ORDER BY number"))
			})
		}
		assert.Equal(t, []string{"an anvil", "a rocket"}, s.raw("acme", "SELECT title FROM orders ORDER BY id"))
		assert.Equal(t, []string{"a bridge"}, s.raw("bravo", "SELECT title FROM orders ORDER BY id"))
		assert.Equal(t, []string{"owner@acme.test"}, s.raw("acme", "SELECT email FROM users"))
		assert.Equal(t, []string{"owner@bravo.test"}, s.raw("bravo", "SELECT email FROM users"))
		assert.Equal(t, []string{"acme", "bravo"}, s.raw("", "SELECT id FROM accounts ORDER BY id"))
		assert.NotContains(t, acme.get(s.at("acme", "/")).body, "on its way")
	})
}

func TestRefusals(t *testing.T) {
	s := serveSQLite(t, t.TempDir())
	acme, bravo, stranger := s.user(), s.user(), s.user()
	acme.signUp("acme", "Acme", "free")
	bravo.signUp("bravo", "Bravo", "free")

	t.Run("another tenant's session", func(t *testing.T) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.at("acme", "/"), nil)
		require.NoError(t, err)
		cookies := acme.client.Jar.Cookies(r.URL)
		require.Len(t, cookies, 1)
		r, err = http.NewRequestWithContext(t.Context(), http.MethodPost, s.at("bravo", "/orders"), strings.NewReader("title=stray&amount=1"))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(cookies[0])
		assert.Equal(t, s.at("bravo", "/login"), stranger.do(r).url)
		assert.Equal(t, s.at("bravo", "/login"), acme.get(s.at("bravo", "/")).url, "a browser does not even send it")
		assert.Empty(t, s.raw("bravo", "SELECT title FROM orders"))
	})
	t.Run("no session", func(t *testing.T) {
		assert.Equal(t, s.at("acme", "/login"), stranger.get(s.at("acme", "/")).url)
		assert.Equal(t, s.at("acme", "/login"), stranger.order("acme", "stray", "1").url)
	})
	t.Run("another tenant's password", func(t *testing.T) {
		got := stranger.send(s.at("acme", "/login"), "email", "owner@bravo.test", "password", "password of bravo")
		assert.Equal(t, http.StatusUnauthorized, got.status)
		got = stranger.send(s.at("acme", "/login"), "email", "owner@acme.test", "password", "password of bravo")
		assert.Equal(t, http.StatusUnauthorized, got.status)
	})
	t.Run("hosts", func(t *testing.T) {
		for label, want := range map[string]int{
			"nobody": http.StatusNotFound, "ACME": http.StatusOK, "a.acme": http.StatusBadRequest, "-": http.StatusBadRequest,
		} {
			assert.Equal(t, want, stranger.get(s.at(label, "/login")).status, label)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.at("", "/login"), nil)
		require.NoError(t, err)
		r.Host = "example.com"
		assert.Equal(t, http.StatusBadRequest, stranger.do(r).status)
	})
	t.Run("another site's form", func(t *testing.T) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.at("acme", "/orders"), strings.NewReader("title=stray&amount=1"))
		require.NoError(t, err)
		r.Header.Set("Origin", s.at("bravo", ""))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		assert.Equal(t, http.StatusForbidden, acme.do(r).status)
	})
	t.Run("operators", func(t *testing.T) {
		for _, path := range []string{"/", "/status/", "/status/?format=json", "/metrics"} {
			assert.Equal(t, http.StatusUnauthorized, acme.get(s.at(operators, path)).status, path)
		}
		assert.Equal(t, http.StatusUnauthorized, s.operator("guess").get(s.at(operators, "/metrics")).status)
	})
	t.Run("orders", func(t *testing.T) {
		for _, order := range [][2]string{{"", "1"}, {"x", ""}, {"x", "-1"}, {"x", "1e7"}, {"x", "NaN"}, {strings.Repeat("x", 201), "1"}} {
			assert.Equal(t, http.StatusUnprocessableEntity, acme.order("acme", order[0], order[1]).status, order)
		}
		for range 3 {
			assert.Equal(t, http.StatusOK, acme.order("acme", "one more", "1").status)
		}
		got := acme.order("acme", "too many", "1")
		assert.Equal(t, http.StatusUnprocessableEntity, got.status)
		assert.Contains(t, got.body, "The plan Free has 3 orders.")
	})
	assert.Empty(t, s.raw("acme", "SELECT title FROM orders WHERE title <> 'one more'"))
}

func TestSignUpRefuses(t *testing.T) {
	s := serveSQLite(t, t.TempDir())
	s.user().signUp("acme", "Acme", "free")
	good := map[string]string{"address": "bravo", "company": "Bravo", "email": "owner@bravo.test", "password": "password", "plan": "free"}
	for name, tc := range map[string]struct{ field, value, says string }{
		"taken":        {"address", "acme", "is taken"},
		"taken, upper": {"address", " ACME ", "is taken"},
		"reserved":     {"address", operators, "is taken"},
		"short":        {"address", "ab", "3 to 31"},
		"long":         {"address", strings.Repeat("a", 32), "3 to 31"},
		"punycode":     {"address", "xn--mnchen-3ya", "3 to 31"},
		"dots":         {"address", "a.b.c", "3 to 31"},
		"not ASCII":    {"address", "münchen", "3 to 31"},
		"no company":   {"company", " ", "name of your company"},
		"no e-mail":    {"email", "owner", "no e-mail address"},
		"with a name":  {"email", "Bravo <owner@bravo.test>", "no e-mail address"},
		"password":     {"password", "1234567", "8 to 72"},
		"long one":     {"password", strings.Repeat("x", 73), "8 to 72"},
		"no plan":      {"plan", "gold", "Choose a plan"},
	} {
		t.Run(name, func(t *testing.T) {
			var fields []string
			for field, value := range good {
				if field == tc.field {
					value = tc.value
				}
				fields = append(fields, field, value)
			}
			got := s.user().send(s.at("", "/signup"), fields...)
			assert.Equal(t, http.StatusUnprocessableEntity, got.status)
			assert.Contains(t, got.body, tc.says)
		})
	}
	assert.Equal(t, []string{"acme"}, s.raw("", "SELECT id FROM accounts"), "nothing is left of them")
}

// TestSignUpGoesOn has an account whose tenant was never made, as after a crash
// between the two. Who knows its e-mail alone does not get it.
func TestSignUpGoesOn(t *testing.T) {
	s := serveSQLite(t, t.TempDir())
	password, err := bcrypt.GenerateFromPassword([]byte("password of acme"), passwordCost)
	require.NoError(t, err)
	lost := Account{ID: "acme", Company: "Acme", PlanID: "free", Email: "owner@acme.test", Password: password}
	require.NoError(t, s.app.db.WithContext(t.Context()).Create(&lost).Error)
	for _, thief := range [][2]string{{"thief@acme.test", "password of acme"}, {"owner@acme.test", "password of thief"}} {
		got := s.user().send(s.at("", "/signup"), "address", "acme", "company", "Thief", "email", thief[0], "password", thief[1], "plan", "free")
		assert.Equal(t, http.StatusUnprocessableEntity, got.status)
		assert.Contains(t, got.body, "is taken")
	}
	s.user().signUp("acme", "Acme", "pro")
	assert.Equal(t, []string{"free"}, s.raw("", "SELECT plan_id FROM accounts"), "who was first")
	assert.Equal(t, []string{"owner@acme.test"}, s.raw("acme", "SELECT email FROM users"))
}

// TestSignUpTwice has somebody who clicks more than once.
func TestSignUpTwice(t *testing.T) {
	engines(t, func(t *testing.T, s *server) {
		var clicks sync.WaitGroup
		for range 4 {
			clicks.Go(func() {
				got := s.user().send(s.at("", "/signup"), "address", "acme", "company", "Acme", "email", "owner@acme.test",
					"password", "password of acme", "plan", "free")
				assert.Equal(t, s.at("acme", "/login?new"), got.url)
			})
		}
		clicks.Wait()
		assert.Equal(t, []string{"owner@acme.test"}, s.raw("acme", "SELECT email FROM users"))
	})
}

// TestPlanHolds has orders that come at the same time, more than the plan has.
func TestPlanHolds(t *testing.T) {
	engines(t, func(t *testing.T, s *server) {
		acme := s.user()
		acme.signUp("acme", "Acme", "free")
		var orders sync.WaitGroup
		for range 12 {
			orders.Go(func() { acme.order("acme", "one", "1") })
		}
		orders.Wait()
		assert.Len(t, s.raw("acme", "SELECT title FROM orders"), 3)
	})
}

func TestSuspended(t *testing.T) {
	engines(t, func(t *testing.T, s *server) {
		acme := s.user()
		acme.signUp("acme", "Acme", "free")
		require.NoError(t, s.app.tenants.Suspend(t.Context(), "acme", catalog.SuspendOptions{}))
		got := acme.get(s.at("acme", "/"))
		assert.Equal(t, http.StatusServiceUnavailable, got.status)
		assert.Equal(t, "60", got.header.Get("Retry-After"))
		require.NoError(t, s.app.tenants.Unsuspend(t.Context(), "acme"))
		s.wait("acme is back", func() bool { return acme.get(s.at("acme", "/")).status == http.StatusOK })
	})
}

// TestInvoiceMissed has an order whose job was lost.
func TestInvoiceMissed(t *testing.T) {
	engines(t, func(t *testing.T, s *server) {
		s.user().signUp("acme", "Acme", "free")
		s.user().signUp("bravo", "Bravo", "free")
		lost := Order{Title: "lost", CreatedAt: time.Now().Add(-2 * missedAfter)}
		require.NoError(t, s.app.db.WithContext(tenant.Ctx(t.Context(), "bravo")).Create(&lost).Error)
		for range 2 {
			require.NoError(t, s.app.invoiceMissed(tenant.Main(t.Context()), &river.Job[invoiceMissed]{}))
		}
		s.wait("the invoice", func() bool { return len(s.raw("bravo", "SELECT number FROM invoices")) == 1 })
		assert.Empty(t, s.raw("acme", "SELECT number FROM invoices"))
	})
}

// operator is who knows the operators' password, if it is the right one.
func (s *server) operator(password string) *user {
	u := s.user()
	u.client.Transport = withPassword{u.client.Transport, password}
	return u
}

type withPassword struct {
	http.RoundTripper
	password string
}

func (w withPassword) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth("op", w.password)
	return w.RoundTripper.RoundTrip(r)
}

func TestOperators(t *testing.T) {
	s := serveSQLite(t, t.TempDir())
	s.user().signUp("acme", "Acme", "free")
	op := s.operator("sesame")
	metrics := op.get(s.at(operators, "/metrics")).body
	assert.Contains(t, metrics, "\ntenancy_pools 1\n")
	assert.NotContains(t, metrics, "acme", "there is a bound on what Prometheus has to keep")
	got := op.get(s.at(operators, "/"))
	assert.Equal(t, s.at(operators, "/status/"), got.url)
	assert.Contains(t, got.body, "acme")
	got = op.get(s.at(operators, "/status/?format=json"))
	assert.Contains(t, got.header.Get("Content-Type"), "application/json")
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	t.Run("before", func(t *testing.T) {
		s := serveSQLite(t, dir)
		u := s.user()
		u.signUp("acme", "Acme", "free")
		u.order("acme", "kept", "1")
	})
	s := serveSQLite(t, dir)
	u := s.user()
	got := u.send(s.at("acme", "/login"), "email", "owner@acme.test", "password", "password of acme")
	assert.Contains(t, got.body, "kept")
}
