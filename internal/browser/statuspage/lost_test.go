package statuspage

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/browser"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
)

// stillApp is an application that does nothing.
func stillApp(t *testing.T) *app {
	return files(t, tenancystatus.Config{}, tenancy.Limits{}, []string{"files"})
}

// A page whose server is gone says so, and from when its figures are; and goes on
// when the server is back.
func TestServerStops(t *testing.T) {
	a := stillApp(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serve := func(l net.Listener) (stop func()) {
		s := &http.Server{Handler: a.page}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Serve(l) // until stop
		}()
		return func() {
			_ = s.Close()
			<-done
		}
	}
	stop := serve(listener)
	a.url = "http://" + listener.Addr().String() + "/"
	tab := live(t, a)
	const banner = `document.querySelector("#lost").checkVisibility()`
	tab.WaitFor("!" + banner)
	require.Contains(t, tab.Text("#live"), "Live")

	stop()
	tab.WaitFor(`document.documentElement.dataset.state === "lost"`)
	tab.WaitFor(banner)
	shown := tab.Text("#as-of")
	require.Equal(t, "Connection lost, last update "+shown+" UTC. The server does not answer. Trying again.", tab.Text("#lost"))
	require.Equal(t, "Not live", tab.Text("#live"))
	var title string
	tab.Eval(`document.title`, &title)
	require.Equal(t, "Not live: app-1 – tenancy", title)
	require.Empty(t, tab.LowContrast(4.5))
	require.Empty(t, tab.Overflow())
	// It still says so after some more attempts.
	asked := len(tab.Requests())
	require.Eventually(t, func() bool { return len(tab.Requests()) >= asked+3 }, waitTime, tick)
	require.Equal(t, shown, tab.Text("#as-of"))
	require.Equal(t, "Not live", tab.Text("#live"))

	listener, err = net.Listen("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer serve(listener)()
	tab.WaitFor(`document.documentElement.dataset.state === "live"`)
	tab.WaitFor("!" + banner)
	require.Contains(t, tab.Text("#live"), "Live")
	tab.Eval(`document.title`, &title)
	require.Equal(t, "app-1 – tenancy", title)
	tab.WaitFor(fmt.Sprintf(`document.querySelector("#as-of").textContent > %q`, shown))
}

// What is no page of figures is not taken for one.
func TestOtherAnswers(t *testing.T) {
	a := stillApp(t)
	var answer atomic.Pointer[http.HandlerFunc]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := answer.Load(); h != nil {
			(*h)(w, r)
			return
		}
		a.page.ServeHTTP(w, r)
	}))
	defer s.Close()
	a.url = s.URL + "/"
	tab := live(t, a)
	for want, h := range map[string]http.HandlerFunc{
		"The answer is another page: reload to sign in again.": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<form><input type=password></form>")
		},
		"The server's answer is status 403.": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "operators only", http.StatusForbidden)
		},
		"The server's answer is status 502.": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		},
	} {
		answer.Store(&h)
		tab.WaitFor(fmt.Sprintf(`document.querySelector("#lost").textContent.includes(%q)`, want))
		require.Contains(t, tab.Text("#lost"), "Connection lost, last update ")
		answer.Store(nil)
		tab.WaitFor(`document.documentElement.dataset.state === "live"`)
	}
}

// A page that is paused, or that nobody sees, asks for nothing.
func TestPauses(t *testing.T) {
	a := stillApp(t)
	tab := live(t, a)
	asksNothing := func() {
		t.Helper()
		require.Equal(t, "Paused", tab.Text("#live"))
		asked := len(tab.Requests())
		a.samples(t, 5) // in that time it would have asked as often
		require.Len(t, tab.Requests(), asked)
	}
	asksAgain := func() {
		t.Helper()
		asked := len(tab.Requests())
		require.Eventually(t, func() bool { return len(tab.Requests()) >= asked+2 }, waitTime, tick)
		require.Contains(t, tab.Text("#live"), "Live")
	}
	tab.Click("#pause")
	require.Equal(t, "Resume", tab.Text("#pause"))
	asksNothing()
	tab.Click("#pause")
	require.Equal(t, "Pause", tab.Text("#pause"))
	asksAgain()

	hide := func(hidden bool) {
		tab.Eval(fmt.Sprintf(`Object.defineProperty(document, "hidden", {value: %v, configurable: true}), document.dispatchEvent(new Event("visibilitychange"))`, hidden), nil)
	}
	hide(true)
	asksNothing()
	hide(false)
	asksAgain()
	requireAlone(t, tab, a)
}

// samples waits until n more samples were taken.
func (a *app) samples(t *testing.T, n int) {
	t.Helper()
	from := a.page.Report().Time
	a.await(t, func(r tenancystatus.Report) bool {
		after := 0
		for _, s := range r.History {
			if s.Time.After(from) {
				after++
			}
		}
		return after >= n
	})
}

func TestWithoutScript(t *testing.T) {
	all := ids(60)
	a := files(t, tenancystatus.Config{}, tenancy.Limits{}, []string{"north", "south"}, all...)
	a.ask(t, all...)
	for name, options := range map[string][]browser.Option{"desktop": nil, "dark phone": {browser.Phone, browser.Dark}} {
		t.Run(name, func(t *testing.T) {
			tab := browser.NewContext(t).Open(t, append(options, browser.NoScript)...)
			tab.Goto(a.url)
			require.Contains(t, tab.Text(".tiles"), "60 of 1,000")
			require.Equal(t, "50 of 60", tab.Text("#tenants-shown"))
			require.Equal(t, "Reloads every 10 s", tab.Text("#live"))
			var has []bool
			tab.Eval(`[document.querySelector("noscript meta[http-equiv=refresh]") !== null, document.querySelector("#pause").checkVisibility()]`, &has)
			require.Equal(t, []bool{true, false}, has)
			require.Empty(t, tab.Overflow())
			require.Empty(t, tab.LowContrast(4.5))
			a.plugin.Evict(all[0])
			tab.Click("#reload")
			tab.WaitFor(`document.querySelector(".tiles").textContent.includes("59 of 1,000")`)
			a.ask(t, all[0])
			for _, url := range tab.Requests() {
				require.Contains(t, []string{a.url, a.url + "?", "data:,"}, url)
			}
			require.Empty(t, tab.Problems())
		})
	}
}

// JSON is one link away.
func TestLinkToJSON(t *testing.T) {
	a := stillApp(t)
	tab := live(t, a)
	tab.Click("#json")
	tab.WaitFor(`location.search === "?format=json" && document.contentType === "application/json"`)
	require.Contains(t, tab.Text("body"), `"servers":[]`)
	require.Empty(t, tab.Problems())
}
