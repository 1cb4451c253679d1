package statuspage

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/browser"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
)

// hostile are names of servers that would be markup, if they could.
var hostile = []string{
	`<script>window.owned = 1</script>`,
	`"><img src=x onerror="window.owned = 2">`,
	`</title></svg><style>* { display: none }</style>`,
	`' onfocus='window.owned = 3' autofocus='`,
	"a-name-" + strings.Repeat("without-any-break-", 12) + "in-it",
	"\u202eright to left\u202c",
}

func ids(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("tenant-%02d-%s", i, strings.Repeat("x", i%50)))
	}
	return ids
}

var looks = map[string][]browser.Option{
	"light desktop": {browser.Light, browser.Desktop},
	"dark desktop":  {browser.Dark, browser.Desktop},
	"light phone":   {browser.Light, browser.Phone},
	"dark phone":    {browser.Dark, browser.Phone},
	"light tablet":  {browser.Light, browser.Width(800)},
	"light narrow":  {browser.Light, browser.Width(320)},
}

// looksGood opens the page in all looks, with all that can be opened open.
func looksGood(t *testing.T, a *app) {
	c := browser.NewContext(t)
	colours := map[string]map[string]string{}
	for name, options := range looks {
		t.Run(name, func(t *testing.T) {
			tab := c.Open(t, options...)
			tab.Goto(a.url)
			tab.Eval(`document.querySelector("details").open = true`, nil)
			tab.WaitFor(`document.documentElement.dataset.state === "live"`)
			require.Empty(t, tab.Overflow())
			require.Empty(t, tab.LowContrast(4.5))
			var seen map[string]string
			tab.Eval(`Object.fromEntries(["body", "h2", ".tiles", ".tiles b", ".meta", "a", "button", "#verdict", ".chart .first", ".chart .area"].map(
				(s) => [s, document.querySelector(s)].map((e, i, all) => i ? getComputedStyle(e) : e)).map(
				([s, style]) => [s, style.color + style.backgroundColor + style.stroke + style.fill]))`, &seen)
			colours[name] = seen
			requireAlone(t, tab, a)
		})
	}
	for _, size := range []string{"desktop", "phone"} {
		light, dark := colours["light "+size], colours["dark "+size]
		require.NotEmpty(t, light)
		for what := range light {
			require.NotEqual(t, light[what], dark[what], "%s of a %s", what, size)
		}
	}
}

// requireAlone checks that tab asked for nothing but the page, and that nothing was
// wrong with it.
func requireAlone(t *testing.T, tab *browser.Tab, a *app) {
	t.Helper()
	require.Empty(t, tab.Problems())
	require.NotEmpty(t, tab.Requests())
	for _, url := range tab.Requests() {
		if url != "data:," { // the empty icon
			require.Equal(t, a.url, url)
		}
	}
}

func TestLooksWithNothing(t *testing.T) {
	looksGood(t, files(t, tenancystatus.Config{}, tenancy.Limits{}, []string{"files"}))
}

func TestLooksWithManyTenants(t *testing.T) {
	all := ids(60)
	a := files(t, tenancystatus.Config{Name: "app-" + strings.Repeat("y", 80)}, tenancy.Limits{}, []string{"db-1.internal:5432", "db-2.internal:5432", ""}, all...)
	a.ask(t, all...)
	looksGood(t, a)
}

func TestLooksInTrouble(t *testing.T) {
	a, _, south := servers(t, tenancystatus.Config{}, 2)
	a.load(t, "north", 2, 8, loadTime)
	a.load(t, "south", 2, 2, loadTime)
	south.Kill()
	a.await(t, func(r tenancystatus.Report) bool {
		return serverOf(r, "south").Down && serverOf(r, "north").Waiting > 0
	})
	looksGood(t, a)
}

// Names are shown as they are, and do nothing.
func TestHostileNames(t *testing.T) {
	all := ids(len(hostile))
	a := files(t, tenancystatus.Config{Name: hostile[0]}, tenancy.Limits{}, hostile, all...)
	a.ask(t, all...)
	looksGood(t, a)

	tab := browser.NewContext(t).Open(t)
	tab.Goto(a.url)
	tab.WaitFor(`document.documentElement.dataset.state === "live"`)
	var names, tenants []string
	tab.Eval(`Array.from(document.querySelectorAll("#servers tbody th"), (e) => e.textContent)`, &names)
	require.ElementsMatch(t, hostile, names)
	tab.Eval(`Array.from(document.querySelectorAll("#tenants tbody th"), (e) => e.textContent)`, &tenants)
	require.ElementsMatch(t, all, tenants)
	require.Equal(t, "Tenancy "+hostile[0], tab.Text("h1"))
	for js, want := range map[string]any{
		`window.owned ?? null`:                       nil,
		`document.querySelectorAll("script").length`: 1.,
		`document.querySelectorAll("style").length`:  1.,
		`document.querySelectorAll("img, iframe, object, embed, form, base, [style], [onerror], [onfocus], [autofocus]").length`: 0.,
	} {
		var got any
		tab.Eval(js, &got)
		require.Equal(t, want, got, js)
	}
	requireAlone(t, tab, a)
}

// What can't be seen is there for those who don't see, or have no mouse.
func TestAccessible(t *testing.T) {
	all := ids(3)
	a := files(t, tenancystatus.Config{}, tenancy.Limits{}, []string{"north", "south"}, all...)
	a.ask(t, all...)
	c := browser.NewContext(t)
	for name, options := range map[string][]browser.Option{"desktop": nil, "phone": {browser.Phone}} {
		t.Run(name, func(t *testing.T) {
			tab := c.Open(t, options...)
			tab.Goto(a.url)
			tab.WaitFor(`document.documentElement.dataset.state === "live"`)
			tab.Eval(`document.querySelector("#pause").click()`, nil) // so that nothing changes while it is looked at
			var wrong []string
			tab.Eval(`[
				["lang", document.documentElement.lang === "en"],
				["title", document.title !== ""],
				["one h1", document.querySelectorAll("h1").length === 1],
				["one main", document.querySelectorAll("main").length === 1],
				["headings", Array.from(document.querySelectorAll("h1, h2, h3"), (h) => Number(h.nodeName[1])).every((n, i, all) => i === 0 ? n === 1 : n <= all[i - 1] + 1)],
				["sections have names", Array.from(document.querySelectorAll("section, [role=region]")).every((e) => document.getElementById(e.getAttribute("aria-labelledby"))?.textContent)],
				["tables have captions", Array.from(document.querySelectorAll("table")).every((e) => e.caption?.textContent)],
				["header cells have scopes", Array.from(document.querySelectorAll("th")).every((e) => e.scope)],
				["cells on phones have labels", Array.from(document.querySelectorAll("table[role] td")).every((e) => e.dataset.label)],
				["pictures have titles", Array.from(document.querySelectorAll("svg")).every((e) => e.getAttribute("aria-hidden") === "true" || e.getAttribute("role") === "img" && e.querySelector("title").textContent)],
				["charts have words", Array.from(document.querySelectorAll(".plot svg")).every((e) => e.querySelector("desc").textContent.includes("UTC"))],
				["ids are unique", new Set(Array.from(document.querySelectorAll("[id]"), (e) => e.id)).size === document.querySelectorAll("[id]").length],
				["numbers are aligned", Array.from(document.querySelectorAll("#tenants td.num")).every((e) => getComputedStyle(e).fontVariantNumeric === "tabular-nums")],
				["what scrolls has the focus", Array.from(document.querySelectorAll(".scroll")).every((e) => e.tabIndex === 0)],
			].filter(([, right]) => !right).map(([what]) => what)`, &wrong)
			require.Empty(t, wrong)

			reached := map[string]bool{}
			for range 14 {
				tab.Press("\t")
				var at struct {
					ID      string
					Outline string
				}
				tab.Eval(`({ID: document.activeElement.id || document.activeElement.className, Outline: getComputedStyle(document.activeElement).outlineStyle})`, &at)
				reached[at.ID] = true
				require.NotEqual(t, "none", at.Outline, "the focus on %s can be seen", at.ID)
				if at.ID == "json" {
					break
				}
			}
			for _, id := range []string{"pause", "reload", "servers-scroll", "history-summary", "tenants-scroll", "evicted-scroll", "json"} {
				require.True(t, reached[id], "%s is reached by Tab: %v", id, reached)
			}
		})
	}
	t.Run("reduced motion", func(t *testing.T) {
		const moving = `Array.from(document.querySelectorAll("*")).filter((e) => getComputedStyle(e).transitionDuration !== "0s" || getComputedStyle(e).animationName !== "none").length`
		tab := c.Open(t, browser.ReducedMotion)
		tab.Goto(a.url)
		var n int
		tab.Eval(moving, &n)
		require.Zero(t, n)
	})
}
