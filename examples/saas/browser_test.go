package main

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/browser"
)

// person is somebody with a browser.
type person struct {
	s   *server
	tab *browser.Tab
}

func (s *server) person(t *testing.T, options ...browser.Option) *person {
	return &person{s, browser.NewContext(t).Open(t, options...)}
}

// signUp fills in the form of the first page, follows it to the tenant's address,
// and signs in there.
func (p *person) signUp(id, company, plan string) {
	p.tab.Goto(p.s.at("", "/"))
	p.tab.Type(`input[name="company"]`, company)
	p.tab.Type(`input[name="address"]`, id)
	p.tab.Type(`input[name="email"]`, "owner@"+id+".test")
	p.tab.Type(`input[name="password"]`, "password of "+id)
	p.tab.Type(`select[name="plan"]`, plan)
	p.tab.Click(`button`)
	p.tab.WaitFor(`location.href === ` + quoted(p.s.at(id, "/login?new")))
	p.signIn(id)
	p.tab.WaitFor(`location.href === ` + quoted(p.s.at(id, "/")) + ` && document.querySelector("#orders")`)
}

func (p *person) signIn(id string) {
	p.tab.WaitFor(`document.querySelector('input[name="email"]')`)
	p.tab.Type(`input[name="email"]`, "owner@"+id+".test")
	p.tab.Type(`input[name="password"]`, "password of "+id)
	p.tab.Click(`button`)
}

func (p *person) order(title, amount string) {
	p.tab.WaitFor(`document.readyState === "complete" && document.querySelector('form.row')`)
	p.tab.Type(`input[name="title"]`, title)
	p.tab.Type(`input[name="amount"]`, amount)
	p.tab.Click(`form.row button`)
	p.tab.WaitFor(`document.querySelector("#orders")?.innerText.includes(` + quoted(title) + `)`)
}

func quoted(s string) string { return "'" + s + "'" }

// TestSideBySide drives two tenants' browsers at the same time, and an operator's
// beside them.
func TestSideBySide(t *testing.T) {
	engines(t, func(t *testing.T, s *server) {
		acme, bravo := s.person(t), s.person(t, browser.Phone, browser.Dark)
		acme.signUp("acme", "Acme & Sons", "Pro")
		bravo.signUp("bravo", "<b>Bravo</b>", "Free")
		assert.Equal(t, "Acme & Sons", acme.tab.Text("h1"))
		assert.Equal(t, "<b>Bravo</b>", bravo.tab.Text("h1"))

		acme.order("an anvil", "12.30")
		bravo.order("a bridge", "9.99")
		acme.order("a rocket", "100")
		// Jobs write the invoices; the page offers to look again until they are there.
		for p, n := range map[*person]string{acme: "2", bravo: "1"} {
			s.wait("invoices", func() bool {
				p.tab.WaitFor(`document.readyState === "complete"`)
				var pending bool
				p.tab.Eval(`document.querySelector('a[href="/"]') !== null`, &pending)
				if pending {
					p.tab.Reload()
				}
				return !pending
			})
			p.tab.WaitFor(`[...document.querySelectorAll("#orders td:last-child")].filter(c => /^\d{4}-\d{4}$/.test(c.innerText)).length === ` + n)
		}
		assert.NotContains(t, acme.tab.Text("#orders"), "bridge")
		assert.NotContains(t, bravo.tab.Text("#orders"), "anvil")
		assert.Equal(t, []string{"an anvil", "a rocket"}, s.raw("acme", "SELECT title FROM orders ORDER BY id"))
		assert.Equal(t, []string{"a bridge"}, s.raw("bravo", "SELECT title FROM orders ORDER BY id"))

		// Who is signed in at one address is nobody at the other.
		acme.tab.Goto(s.at("bravo", "/"))
		assert.Equal(t, s.at("bravo", "/login"), acme.tab.URL())
		acme.signIn("acme")
		acme.tab.WaitFor(`document.querySelector(".notice")`)
		assert.Equal(t, "E-mail or password is wrong.", acme.tab.Text(".notice"))
		acme.tab.Goto(s.at("acme", "/"))
		assert.Equal(t, s.at("acme", "/"), acme.tab.URL())

		operator := s.person(t)
		_, port, err := net.SplitHostPort(s.addr)
		require.NoError(t, err)
		operator.tab.Goto("http://op:sesame@" + operators + ".localhost:" + port + "/")
		operator.tab.WaitFor(`document.body.innerText.includes("acme") && document.body.innerText.includes("bravo")`)

		for name, p := range map[string]*person{"acme": acme, "bravo": bravo, "operator": operator} {
			var wide bool
			p.tab.Eval(`document.documentElement.scrollWidth > window.innerWidth`, &wide)
			assert.False(t, wide, "%s has to scroll sideways", name)
			for _, problem := range p.tab.Problems() {
				assert.Contains(t, problem, "401 (Unauthorized)", name) // the sign-in that failed
			}
		}
	})
}

// TestSignOut ends a session, also for a copy of its cookie.
func TestSignOut(t *testing.T) {
	s := serveSQLite(t, t.TempDir())
	acme := s.person(t)
	acme.signUp("acme", "Acme", "Free")
	require.Len(t, s.raw("acme", "SELECT user_id FROM sessions"), 1)
	acme.tab.Click(`form[action="/logout"] button`)
	acme.tab.WaitFor(`location.pathname === "/login"`)
	require.Empty(t, s.raw("acme", "SELECT user_id FROM sessions"))
	acme.tab.Goto(s.at("acme", "/"))
	require.Equal(t, s.at("acme", "/login"), acme.tab.URL())
}
