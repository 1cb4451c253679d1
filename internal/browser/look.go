package browser

import _ "embed"

//go:embed look.js
var lookJS string

// LowContrast lists the texts that can be seen and whose contrast to what is behind
// them is less than least: 4.5 is what WCAG 2.2 asks for
// (https://www.w3.org/TR/WCAG22/#contrast-minimum). Colours are the computed ones,
// laid over each other by their opacity; pictures and gradients are not looked at.
func (t *Tab) LowContrast(least float64) (texts []string) {
	t.tb.Helper()
	t.Eval(lookJS+".lowContrast("+number(least)+")", &texts)
	return texts
}

// Overflow lists the elements that make the page wider than its window, so that it
// has to be scrolled sideways; none if it has not. What scrolls in its own box does
// not count.
func (t *Tab) Overflow() (elements []string) {
	t.tb.Helper()
	t.Eval(lookJS+".overflow()", &elements)
	return elements
}
