package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Tab is a page of a [Context]. What can't be done within 30 seconds fails the
// test. Its methods are for one goroutine at a time.
type Tab struct {
	tb  TB
	ctx context.Context

	mu       sync.Mutex // guards what the browser tells of
	requests []string
	problems []string
}

// Open opens a tab, which is closed when the test ends.
func (c *Context) Open(tb TB, options ...Option) *Tab {
	tb.Helper()
	v := view{scheme: "light", motion: "no-preference"}
	Desktop(&v)
	for _, o := range options {
		o(&v)
	}
	t := &Tab{tb: tb}
	ctx, end := chromedp.NewContext(c.ctx, chromedp.WithListener(t.note))
	tb.Cleanup(end)
	t.ctx = ctx
	if err := first(ctx, end, v.apply); err != nil {
		tb.Fatalf("browser: a new tab: %v", err)
		return nil
	}
	return t
}

// note keeps what tests ask for. It is called on the goroutine that reads from the
// browser.
func (t *Tab) note(event any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		t.requests = append(t.requests, e.Request.URL)
	case *network.EventWebSocketCreated:
		t.requests = append(t.requests, e.URL)
	case *log.EventEntryAdded: // what a policy blocked, and what failed to load
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			t.problems = append(t.problems, fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			text := ""
			for _, arg := range e.Args {
				text += " " + string(arg.Value) + arg.Description
			}
			t.problems = append(t.problems, fmt.Sprintf("console %s:%s", e.Type, text))
		}
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if thrown := e.ExceptionDetails.Exception; thrown != nil {
			text += " " + thrown.Description
		}
		t.problems = append(t.problems, "exception: "+text)
	}
}

// Requests are the URLs that were asked for so far, in order: of pages, and of all
// that they want.
func (t *Tab) Requests() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.requests)
}

// Problems are the errors and warnings so far: those of the console, exceptions
// that nobody caught, what a Content-Security-Policy blocked, what did not load.
func (t *Tab) Problems() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.problems)
}

// Forget empties Requests and Problems.
func (t *Tab) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests, t.problems = nil, nil
}

// do runs an action that the test can't go on without.
func do[T any](t *Tab, what string, a chromedp.Action[T]) T {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		t.tb.Fatalf("browser: %s: %v; problems: %q", what, err, t.Problems())
	}
	return v
}

// Goto opens url and waits until it has loaded, whatever the status. That nobody
// answers fails the test.
func (t *Tab) Goto(url string) {
	t.tb.Helper()
	do(t, "go to "+url, chromedp.Navigate(url))
}

// Reload loads the page anew.
func (t *Tab) Reload() {
	t.tb.Helper()
	do(t, "reload", chromedp.Reload())
}

// URL is where the tab is.
func (t *Tab) URL() string {
	t.tb.Helper()
	return do(t, "location", chromedp.Location())
}

// Eval runs JavaScript and decodes its value, or that of its promise, into out; nil
// is for none.
func (t *Tab) Eval(js string, out any) {
	t.tb.Helper()
	v, err := t.eval(js)
	if err != nil {
		t.tb.Fatalf("browser: %s: %v", js, err)
		return
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(v, out); err != nil {
		t.tb.Fatalf("browser: the value of %s: %v", js, err)
	}
}

// eval returns the value of js as JSON.
func (t *Tab) eval(js string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	// JSON is made in the page: undefined has none, and becomes null.
	v, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		"(async () => JSON.stringify(await ("+js+")) ?? \"null\")()", chromedp.EvalAwaitPromise))
	return []byte(v), err
}

// Text is the text of the first element that selector finds, as it is shown; of one
// that is not shown, all that is in it.
func (t *Tab) Text(selector string) string {
	t.tb.Helper()
	var text *string
	t.Eval("document.querySelector("+quote(selector)+")?.innerText", &text)
	if text == nil {
		t.tb.Fatalf("browser: nothing on %s is %s", t.URL(), selector)
		return ""
	}
	return *text
}

// WaitFor waits until js is true. It goes on asking over reloads, and also where
// scripts are turned off.
func (t *Tab) WaitFor(js string) {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	var (
		got []byte
		err error
	)
	for {
		if got, err = t.eval("!!(" + js + ")"); err == nil && string(got) == "true" {
			return
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			t.tb.Fatalf("browser: waited %s for %s: %v; problems: %q", timeout, js, err, t.Problems())
			return
		case <-ticker.C:
		}
	}
}

// Click clicks on the first element that selector finds, once it can be seen.
func (t *Tab) Click(selector string) {
	t.tb.Helper()
	do(t, "click on "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// Type types text, key by key, into the first element that selector finds.
func (t *Tab) Type(selector, text string) {
	t.tb.Helper()
	do(t, "type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Press presses keys one after the other, wherever the focus is: "\t" is the key
// Tab, "\r" is Enter.
func (t *Tab) Press(keys string) {
	t.tb.Helper()
	do(t, "press "+quote(keys), chromedp.KeyEvent(keys))
}

// Screenshot writes a picture of the whole page to file, as PNG.
func (t *Tab) Screenshot(file string) {
	t.tb.Helper()
	png := do(t, "screenshot", chromedp.FullScreenshot(100))
	if err := os.WriteFile(file, png, 0o644); err != nil {
		t.tb.Fatalf("browser: %v", err)
	}
}

// quote makes a JavaScript string of s. JSON is one.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string has JSON
	return string(b)
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
