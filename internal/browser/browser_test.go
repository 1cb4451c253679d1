package browser_test

import (
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/browser"
)

// serve serves body, with the headers of set, as HTML.
func serve(t *testing.T, body string, set http.Header) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range set {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<!DOCTYPE html><title>test</title><meta name=viewport content='width=device-width'>", body)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestTab(t *testing.T) {
	s := serve(t, `<h1>Hello</h1><button id=b>0</button><input id=i>
		<script>b.onclick = () => b.textContent++</script>`, nil)
	tab := browser.NewContext(t).Open(t)
	tab.Goto(s.URL + "/page")
	require.Equal(t, "Hello", tab.Text("h1"))
	require.Equal(t, s.URL+"/page", tab.URL())
	tab.Click("#b")
	tab.WaitFor(`b.textContent === "1"`)
	tab.Type("#i", "typed")
	var got struct {
		Value string
		Async int
	}
	tab.Eval(`new Promise(done => setTimeout(() => done({Value: i.value, Async: 42}), 1))`, &got)
	require.Equal(t, "typed", got.Value)
	require.Equal(t, 42, got.Async)
	require.Empty(t, tab.Problems())
	require.Equal(t, s.URL+"/page", tab.Requests()[0])
	for _, url := range tab.Requests()[1:] {
		require.Equal(t, s.URL+"/favicon.ico", url, "and nothing else was asked for")
	}

	file := filepath.Join(t.TempDir(), "page.png")
	tab.Screenshot(file)
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	picture, err := png.Decode(f)
	require.NoError(t, err)
	require.GreaterOrEqual(t, picture.Bounds().Dx(), 1280-20) // less a scroll bar

	tab.Reload()
	require.Equal(t, "0", tab.Text("#b"))
}

func TestOptions(t *testing.T) {
	s := serve(t, `<p id=p>still</p><noscript>none</noscript><script>p.textContent = "run"</script>`, nil)
	c := browser.NewContext(t)
	const js = `[innerWidth, matchMedia("(prefers-color-scheme: dark)").matches,
		matchMedia("(prefers-reduced-motion: reduce)").matches, matchMedia("(pointer: coarse)").matches, p.textContent]`
	for name, tt := range map[string]struct {
		options []browser.Option
		want    []any
	}{
		"as it comes":    {nil, []any{1280., false, false, false, "run"}},
		"dark phone":     {[]browser.Option{browser.Phone, browser.Dark}, []any{360., true, false, true, "run"}},
		"calm, narrow":   {[]browser.Option{browser.Width(777), browser.ReducedMotion}, []any{777., false, true, false, "run"}},
		"without script": {[]browser.Option{browser.NoScript}, []any{1280., false, false, false, "still"}},
	} {
		t.Run(name, func(t *testing.T) {
			tab := c.Open(t, tt.options...)
			tab.Goto(s.URL)
			var got []any
			tab.Eval(js, &got)
			require.Equal(t, tt.want, got)
		})
	}
}

// What two users have is kept apart, on hosts that need no name server.
func TestContextsShareNothing(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user := r.URL.Query().Get("user"); user != "" {
			http.SetCookie(w, &http.Cookie{Name: "user", Value: user})
		}
		user := "nobody"
		if c, err := r.Cookie("user"); err == nil {
			user = c.Value
		}
		fmt.Fprintf(w, "<p>%s on %s</p>", user, r.Host)
	}))
	defer s.Close()
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	host := "acme.localhost" + port

	one, two := browser.NewContext(t), browser.NewContext(t)
	tab := one.Open(t)
	tab.Goto("http://" + host + "/?user=ann")
	tab.Goto("http://" + host)
	require.Equal(t, "ann on "+host, tab.Text("p"))
	tab.Eval(`localStorage.setItem("key", "ann's")`, nil)

	other := two.Open(t)
	other.Goto("http://" + host)
	require.Equal(t, "nobody on "+host, other.Text("p"))
	var stored *string
	other.Eval(`localStorage.getItem("key")`, &stored)
	require.Nil(t, stored)

	again := one.Open(t)
	again.Goto("http://" + host)
	require.Equal(t, "ann on "+host, again.Text("p"))
	again.Goto("http://globex.localhost" + port)
	require.Equal(t, "nobody on globex.localhost"+port, again.Text("p"))
}

func TestProblems(t *testing.T) {
	for name, tt := range map[string]struct {
		body   string
		header http.Header
		want   string
	}{
		"console":        {`<script>console.error("it is", "broken")</script>`, nil, "it is"},
		"exception":      {`<script>throw new Error("uncaught")</script>`, nil, "uncaught"},
		"rejection":      {`<script>Promise.reject(new Error("unhandled"))</script>`, nil, "unhandled"},
		"policy, script": {`<script>1</script>`, http.Header{"Content-Security-Policy": {"script-src 'none'"}}, "Content Security Policy"},
		"policy, style":  {`<p style="color: red">`, http.Header{"Content-Security-Policy": {"style-src 'none'"}}, "Content Security Policy"},
		"not found":      {`<img src="http://no-such-host.example/x.png">`, nil, "ERR_NAME_NOT_RESOLVED"},
		"an address":     {`<img src="http://192.0.2.1/x.png">`, nil, "ERR_NAME_NOT_RESOLVED"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tt.body, tt.header)
			tab := browser.NewContext(t).Open(t)
			tab.Goto(s.URL)
			require.Eventually(t, func() bool { return strings.Contains(fmt.Sprint(tab.Problems()), tt.want) },
				30*time.Second, 10*time.Millisecond)
			tab.Forget()
			require.Empty(t, tab.Problems())
			require.Empty(t, tab.Requests())
		})
	}
}
