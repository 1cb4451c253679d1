package tenancystatus

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

// policy allows this page's style and script, by what they are, its empty icon,
// and its questions to where it came from. Nothing else is loaded, run, sent or
// framed; and no script can make markup of a string.
var policy = "default-src 'none'; style-src " + hashOf(pageCSS) + "; script-src " + hashOf(pageJS) +
	"; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
	"; require-trusted-types-for 'script'; trusted-types 'none'"

// hashOf is how a policy names what is between the tags.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// page escapes all that it is given, but style and script, which are our own
// files and must stay what their hashes say.
var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"n":        number[int],
	"count":    number[uint64],
	"rate":     perSecond,
	"seconds":  seconds,
	"mean":     mean,
	"clock":    clock,
	"name":     serverName,
	"lately":   lately,
	"style":    func() template.HTML { return template.HTML("<style>" + pageCSS + "</style>") },
	"script":   func() template.HTML { return template.HTML("<script>" + pageJS + "</script>") },
	"inTenant": func(t Tenant) int { return max(0, t.Conns-t.ConnsIdle) },
}).Parse(pageHTML))

func render(w io.Writer, v view) error { return page.Execute(w, v) }
