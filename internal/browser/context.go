package browser

import (
	"context"
	"fmt"
	"time"

	"github.com/chromedp/chromedp"
)

// Context is one user's browser: its cookies, storage and cache are its own.
type Context struct {
	ctx context.Context
}

// NewContext returns a context that ends with the test. It starts the browser of
// this test binary if there is none yet. Without a browser the test is skipped, or
// fails if [EnvRequire] is 1.
func NewContext(tb TB) *Context {
	tb.Helper()
	p := the(tb)
	if p == nil {
		return nil
	}
	ctx, end := chromedp.NewContext(p.ctx, chromedp.WithNewBrowserContext())
	tb.Cleanup(end)
	if err := first(ctx, end); err != nil {
		tb.Fatalf("browser: a new context: %v", err)
		return nil
	}
	return &Context{ctx: ctx}
}

// first makes the tab of ctx. A tab ends with the context that it was made with,
// so that can't have a deadline.
func first(ctx context.Context, end func(), steps ...chromedp.Action[chromedp.Void]) error {
	late := time.AfterFunc(timeout, end)
	defer late.Stop()
	if err := chromedp.Do(ctx, steps...); err != nil {
		return fmt.Errorf("within %s: %w", timeout, err)
	}
	return nil
}
