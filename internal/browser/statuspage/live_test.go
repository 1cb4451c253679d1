package statuspage

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/browser"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
)

// loadTime is how long a statement of the tests' load takes.
const loadTime = 10 * time.Millisecond

// waitTime bounds waits for what will come, and tick is how often it is looked for.
const (
	waitTime = time.Minute
	tick     = 10 * time.Millisecond
)

// await waits until the page's figures are as ok says.
func (a *app) await(t *testing.T, ok func(tenancystatus.Report) bool) {
	t.Helper()
	require.Eventually(t, func() bool { return ok(a.page.Report()) }, waitTime, tick)
}

func serverOf(r tenancystatus.Report, name string) (s tenancystatus.Server) {
	for _, s := range r.Servers {
		if s.Server == name {
			return s
		}
	}
	return s
}

// live opens the page and waits until it keeps itself up to date.
func live(t *testing.T, a *app, options ...browser.Option) *browser.Tab {
	t.Helper()
	tab := browser.NewContext(t).Open(t, options...)
	tab.Goto(a.url)
	tab.WaitFor(`document.documentElement.dataset.state === "live"`)
	return tab
}

// The page shows what the JSON says, and what the plugin says.
func TestFiguresAreTheJSONs(t *testing.T) {
	all := ids(7)
	a := files(t, tenancystatus.Config{Tenants: 5}, tenancy.Limits{MaxPools: 6}, []string{"north", "south"}, all...)
	for range 300 { // more than a thousand hits: with a separator
		a.ask(t, all[:5]...)
	}
	a.ask(t, all...)
	a.plugin.Evict(all[6])
	require.Error(t, a.db.Exec("SELECT 1").Error) // refused
	a.await(t, func(r tenancystatus.Report) bool { return r.Pools.Draining == 0 })

	tab := live(t, a)
	var wrong []string
	tab.Eval(`(async () => {
		const report = await (await fetch("?format=json")).json();
		const wrong = [];
		const same = (what, shown, want) => {
			if (shown !== Number(want).toLocaleString("en-US")) wrong.push(what + ": " + shown + ", not " + want);
		};
		const figures = {...report.pools};
		for (const cause in report.pools.evicted_total) figures["evicted_" + cause] = report.pools.evicted_total[cause];
		let n = 0;
		for (const e of document.querySelectorAll("[data-figure]")) {
			const row = e.closest("[data-server]");
			const of = row ? report.servers.find((s) => s.server === row.dataset.server) : figures;
			same(e.dataset.figure, e.textContent, of[e.dataset.figure]);
			n++;
		}
		if (n < 25) wrong.push("only " + n + " figures were looked at");
		if (document.querySelectorAll("#servers tbody tr").length !== report.servers.length) wrong.push("servers");
		const tenants = Array.from(document.querySelectorAll("#tenants tbody th"), (e) => e.textContent);
		if (JSON.stringify(tenants) !== JSON.stringify(report.tenants.map((t) => t.tenant))) wrong.push("tenants " + tenants);
		return wrong;
	})()`, &wrong)
	require.Empty(t, wrong)

	s := a.plugin.Stats()
	require.Equal(t, 5, s.Pools)
	require.Contains(t, tab.Text(".tiles"), "5 of 6")
	require.Equal(t, fmt.Sprintf("%d of %d", 5, 5), tab.Text("#tenants-shown"))
	require.Equal(t, fmt.Sprint(s.Evicted[tenancy.CauseEvicted]), tab.Text(`[data-figure="evicted_evicted"]`))
	require.Equal(t, "1", tab.Text(`[data-figure="refused_total"]`))
	require.Empty(t, tab.Problems())
}

// Real load, and a server that is really killed, are seen without a reload, while
// the reader stays where they are.
func TestLive(t *testing.T) {
	a, _, south := servers(t, tenancystatus.Config{}, 2)
	tab := live(t, a)
	tab.Eval(`window.kept = document.querySelector("main")`, nil)
	require.Equal(t, "No tenant has been awake yet.", tab.Text("#verdict p"))

	stop := a.load(t, "north", 2, 8, loadTime)
	tab.WaitFor(`Number(document.querySelector('[data-server=north] [data-figure=waiting]')?.textContent) > 0`)
	tab.WaitFor(`/callers? waits? for a connection to north/.test(document.querySelector("#verdict").textContent)`)
	tab.WaitFor(`document.title.startsWith("(")`)
	// All of the charts that load moves, do.
	var before map[string]string
	const paths = `Object.fromEntries(["server-0", "statements", "waiting", "wait", "pools"].map((id) => [id, document.querySelector("#chart-" + id + " .plot path.first").getAttribute("d")]))`
	tab.Eval(paths, &before)
	for id, path := range before {
		tab.WaitFor(fmt.Sprintf(`document.querySelector("#chart-%s .plot path.first").getAttribute("d") !== %q`, id, path))
	}
	tab.WaitFor(`/^[\d,.]+ (ms|s)$/.test(document.querySelector("#chart-wait .key b").textContent)`)
	tab.WaitFor(`parseFloat(document.querySelector("#chart-statements .key b").textContent) > 0`)

	// What is open stays open, the focus and the scroll stay where they are.
	tab.Click("#history-summary")
	tab.Eval(`document.querySelector("#history-summary").focus(), scrollTo(0, 150)`, nil)
	var at, rows string
	tab.Eval(`document.querySelector("#as-of").dateTime`, &at)
	tab.Eval(`document.querySelector("#history-table tbody").textContent`, &rows)
	tab.WaitFor(fmt.Sprintf(`document.querySelector("#as-of").dateTime > %q`, at))
	tab.WaitFor(fmt.Sprintf(`document.querySelector("#history-table tbody").textContent !== %q`, rows))
	var kept []any
	tab.Eval(`[document.querySelector("#history").open, document.activeElement.id, scrollY, window.kept === document.querySelector("main")]`, &kept)
	require.Equal(t, []any{true, "history-summary", 150., true}, kept)
	stop()
	tab.WaitFor(`document.querySelector('[data-server=north] [data-figure=waiting]').textContent === "0"`)

	// A server that goes down, and comes back.
	a.load(t, "south", 2, 2, loadTime)
	tab.WaitFor(`document.querySelector("[data-server=south] .badge")?.textContent === "Answers"`)
	south.Kill()
	tab.WaitFor(`document.querySelector("[data-server=south] .badge")?.textContent === "Down"`)
	tab.WaitFor(`/south is down since \d\d:\d\d:\d\d UTC/.test(document.querySelector("#verdict").textContent)`)
	tab.WaitFor(`document.querySelector(".chart.has-down rect.down")`)
	tab.WaitFor(`document.querySelector("#servers tbody tr").dataset.server === "south"`)
	require.Equal(t, "Answers", tab.Text("[data-server=north] .badge"))
	south.Restart()
	tab.WaitFor(`document.querySelector("[data-server=south] .badge").textContent === "Answers"`)
	tab.WaitFor(`!document.querySelector("#verdict").textContent.includes("is down")`)

	var same bool
	tab.Eval(`window.kept === document.querySelector("main")`, &same)
	require.True(t, same, "it was never loaded anew")
	requireAlone(t, tab, a)
}
