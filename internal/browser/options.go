package browser

import (
	"context"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Option changes a tab that [Context.Open] opens.
type Option func(*view)

type view struct {
	width, height int64
	phone         bool
	scheme        string
	motion        string
	noScript      bool
}

// Desktop is a window of 1280 by 800 pixels. It is the default.
func Desktop(v *view) { v.width, v.height, v.phone = 1280, 800, false }

// Phone is a phone of 360 by 740 pixels, with its view port and touches.
func Phone(v *view) { v.width, v.height, v.phone = 360, 740, true }

// Width is a window of another width.
func Width(pixels int64) Option { return func(v *view) { v.width = pixels } }

// Light and Dark are the colour scheme that the user prefers. Light is the
// default.
func Light(v *view) { v.scheme = "light" }

// Dark is described at [Light].
func Dark(v *view) { v.scheme = "dark" }

// ReducedMotion is a user who prefers reduced motion.
func ReducedMotion(v *view) { v.motion = "reduce" }

// NoScript is a user who has turned scripts off. [Tab.Eval] works all the same.
func NoScript(v *view) { v.noScript = true }

// apply sets a tab up.
func (v view) apply(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
	viewport := chromedp.EmulateViewport(v.width, v.height)
	if v.phone {
		viewport = chromedp.EmulateViewport(v.width, v.height, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(2))
	}
	if _, err := viewport(ctx, t); err != nil {
		return chromedp.Void{}, err
	}
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: v.scheme},
		{Name: "prefers-reduced-motion", Value: v.motion},
	}}
	if _, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, media); err != nil {
		return chromedp.Void{}, err
	}
	_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: v.noScript})
	return chromedp.Void{}, err
}
