package browser_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/browser"
)

func TestLowContrast(t *testing.T) {
	c := browser.NewContext(t)
	for name, tt := range map[string]struct {
		body string
		low  bool
	}{
		"black on white":     {`<p>text</p>`, false},
		"grey on white":      {`<p style="color: #777">text</p>`, true},     // 4.48
		"darker on white":    {`<p style="color: #757575">text</p>`, false}, // 4.6
		"by opacity":         {`<p style="opacity: .5">text</p>`, true},
		"by alpha":           {`<p style="color: rgba(0,0,0,.5)">text</p>`, true},
		"behind a parent":    {`<div style="background: #222"><p>text</p></div>`, true},
		"over a parent":      {`<div style="background: #000"><p style="background: rgba(255,255,255,.9)">text</p></div>`, false},
		"before":             {`<style>p::before { content: "x"; color: #ddd }</style><p></p>`, true},
		"nothing before":     {`<style>p::before { content: ""; color: #ddd }</style><p></p>`, false},
		"hidden":             {`<p hidden style="color: #fff">text</p>`, false},
		"for screen readers": {`<p style="color: #fff; position: absolute; width: 1px; height: 1px; overflow: hidden">text</p>`, false},
		"not rgb":            {`<p style="color: color(display-p3 1 0 0)">text</p>`, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tt.body, nil)
			tab := c.Open(t)
			tab.Goto(s.URL)
			low := tab.LowContrast(4.5)
			require.Equal(t, tt.low, len(low) > 0, "%q", low)
		})
	}
}

func TestOverflow(t *testing.T) {
	c := browser.NewContext(t)
	for name, tt := range map[string]struct{ body, want string }{
		"fits":              {`<p>text</p>`, ""},
		"a wide one":        {`<p id=wide style="width: 500px">text</p>`, "p#wide"},
		"a word":            {`<p>` + strings.Repeat("x", 200) + `</p>`, "wide"},
		"in a box":          {`<div style="overflow-x: auto"><p style="width: 500px">text</p></div>`, ""},
		"beside the window": {`<p style="position: absolute; left: 400px; width: 9px">x</p>`, "p"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tt.body, nil)
			tab := c.Open(t, browser.Phone)
			tab.Goto(s.URL)
			wide := strings.Join(tab.Overflow(), " ")
			if tt.want == "" {
				require.Empty(t, wide)
			} else {
				require.Contains(t, wide, tt.want)
			}
		})
	}
}
