// Package browser gives tests a real browser: one headless Chromium for each test
// binary, with a context of its own for each user that a test needs.
//
//	func TestMain(m *testing.M) { os.Exit(browser.Run(m)) }
//
//	func TestPage(t *testing.T) {
//		tab := browser.NewContext(t).Open(t, browser.Phone, browser.Dark)
//		tab.Goto(server.URL)
//		tab.WaitFor(`document.querySelector("h1")`)
//		...
//	}
//
// Contexts share nothing: cookies, storage and cache are their own. They see no
// network but this machine: names lead nowhere, except localhost and what ends in
// it ("acme.localhost"), which Chromium takes for 127.0.0.1. What a page
// asked for all the same is in [Tab.Requests].
//
// The browser does not outlive the test process, however that ends. Its profile is
// in a directory for temporary files, and goes with it; only of a process that was
// killed it stays there.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"

	"github.com/gorm-tenancy/tenancy/internal/testmain"
)

// EnvRequire names the environment variable that, when it is 1, makes a test fail
// where it would be skipped because there is no browser.
const EnvRequire = "TENANCY_TEST_REQUIRE_BROWSER"

// startTime bounds the start of the browser, and timeout each thing that is asked
// of it: generous, since a machine may be busy, but none of them may hang.
const (
	startTime = time.Minute
	timeout   = 30 * time.Second
)

// TB is what this package uses of [testing.TB].
type TB = testmain.TB

// M is what this package uses of [testing.M].
type M = testmain.M

// process is a browser that runs.
type process struct {
	ctx     context.Context // chromedp's, of the browser and its first tab
	end     context.CancelFunc
	home    string
	version string
}

// shared is the browser of this test binary.
var shared struct {
	mu   sync.Mutex
	p    *process
	err  error
	done bool // Run has ended, or a start was tried
}

// the returns the browser of this test binary, and starts it when first asked.
// Without one the test is skipped, or fails if [EnvRequire] is 1.
func the(tb TB) *process {
	tb.Helper()
	program, err := find()
	if err != nil {
		missing(tb, err)
		return nil
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.done {
		shared.done = true
		shared.p, shared.err = start(program)
	}
	switch {
	case shared.err != nil:
		tb.Fatalf("browser: %v", shared.err)
		return nil
	case shared.p == nil:
		tb.Fatalf("browser: asked for after Run ended")
		return nil
	}
	return shared.p
}

// Run runs the tests, ends the browser, and returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(browser.Run(m)) }
func Run(m M) int { return Main(m).Run() }

// Main is [Run] for a TestMain that hands its M on:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(browser.Main(m)) }
func Main(m M) M { return testmain.After(m, end) }

// end ends the shared browser.
func end() (err error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.p != nil {
		if err = shared.p.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "browser:", err)
		}
		shared.p = nil
	}
	shared.done = true
	return err
}

// missing ends a test that can't have a browser.
func missing(tb TB, err error) {
	tb.Helper()
	const advice = "install it (Debian: apt-get install chromium; Ubuntu: Google's package google-chrome-stable, as chromium there is a snap), or put it on PATH"
	testmain.Missing(tb, "browser", err, advice, os.Getenv(EnvRequire) == "1")
}

// flags are those of the browser besides chromedp's own. [chromedp.NoSandbox]
// is none of them: it is for root alone, where there is no way without.
var flags = map[string]any{
	// Names lead nowhere but to this machine, and no proxy of the environment
	// or of the machine is asked.
	"host-resolver-rules": "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost",
	"no-proxy-server":     true,
	// Nothing is fetched or told in the background.
	"disable-background-networking": true,
	"disable-component-update":      true,
	"disable-domain-reliability":    true,
	"disable-sync":                  true,
	"disable-crash-reporter":        true,
	"no-pings":                      true,
	"disable-gpu":                   true,
	"mute-audio":                    true,
}

// start starts program. It tells of what the browser said if that fails.
func start(program string) (_ *process, err error) {
	home, err := os.MkdirTemp("", "tenancy-browser-")
	if err != nil {
		return nil, err
	}
	p := &process{home: home, end: func() {}}
	said := new(output)
	defer func() {
		if err != nil {
			p.end()
			_ = os.RemoveAll(home)
			err = fmt.Errorf("%s did not start: %w\n%s", program, err, said)
		}
	}()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.UserDataDir(filepath.Join(home, "profile")),
		chromedp.CombinedOutput(said),
		// What the environment has is none of a page's business.
		chromedp.NoInheritEnv,
		chromedp.Env("HOME="+home, "TMPDIR="+home, "PATH="+os.Getenv("PATH"), "LANG=C.UTF-8", "TZ=UTC"),
	)
	for name, value := range flags {
		options = append(options, chromedp.Flag(name, value))
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium has none as root
	}
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, endContext := chromedp.NewContext(allocator)
	p.ctx = ctx
	p.end = func() {
		endContext()
		endAllocator() // returns when the process is gone
	}
	// The browser lives as long as the context that it was started with, so its
	// start can't have a deadline of its own.
	late := time.AfterFunc(startTime, endAllocator)
	defer late.Stop()
	p.version, err = chromedp.Run(ctx, func(ctx context.Context, _ *chromedp.Target) (string, error) {
		v, err := cdp.Call(ctx, chromedp.FromContext(ctx).Browser, cdpbrowser.GetVersion, cdp.Empty{})
		return v.Product, err
	})
	return p, err
}

// stop ends the browser and removes its directory.
func (p *process) stop() error {
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	err := chromedp.Cancel(ctx) // asks it to close, and kills it if it does not
	p.end()
	// Processes of the browser may be some milliseconds behind it.
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		gone := os.RemoveAll(p.home)
		if gone == nil || time.Now().After(deadline) {
			return errors.Join(err, gone)
		}
	}
}

// output keeps the end of what the browser says.
type output struct {
	mu   sync.Mutex
	text []byte
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	const most = 8 << 10
	o.text = append(o.text, b...)
	if n := len(o.text) - most; n > 0 {
		o.text = append(o.text[:0], o.text[n:]...)
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.TrimSpace(string(o.text))
}
