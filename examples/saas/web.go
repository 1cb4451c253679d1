package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gorm-tenancy/tenancy/tenancyhttp"
)

// operators is the label of the operators' host.
const operators = "operators"

//go:embed web
var files embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"money": func(cents int) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) },
}).ParseFS(files, "web/*.html"))

// handler is the whole server: the first page at the base domain, the operators'
// pages and the tenants below it.
func (a *app) handler() (http.Handler, error) {
	first := http.NewServeMux()
	first.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { a.welcome(w, r, "") })
	first.HandleFunc("POST /signup", a.signUp)
	first.HandleFunc("GET /style.css", style)

	own := http.NewServeMux()
	own.HandleFunc("GET /{$}", a.signedIn(a.ordersPage))
	own.HandleFunc("POST /orders", a.signedIn(a.addOrder))
	own.HandleFunc("GET /login", a.loginPage)
	own.HandleFunc("POST /login", a.signIn)
	own.HandleFunc("POST /logout", a.signedIn(a.signOut))
	own.HandleFunc("GET /style.css", style)

	// Anybody may see a tenant's sign-in page. Whoever wants more needs a session
	// of that tenant: see signedIn.
	tenants, err := tenancyhttp.New(tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain(a.cfg.base),
		Authorize: tenancyhttp.Anyone,
		Check:     a.plugin.Check,
		Errors:    a.fail,
	})
	if err != nil {
		return nil, err
	}

	inside := http.NewServeMux()
	inside.Handle("GET /metrics", promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{}))
	inside.Handle("/status/", a.status)
	inside.Handle("GET /{$}", http.RedirectHandler("/status/", http.StatusSeeOther))

	hosts := map[string]http.Handler{
		a.cfg.base:                   first,
		operators + "." + a.cfg.base: a.operatorsOnly(inside),
	}
	other := tenants(own)
	byHost := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, ok := hosts[hostname(r)]; ok {
			h.ServeHTTP(w, r)
			return
		}
		other.ServeHTTP(w, r)
	})
	// Forms that other sites send are refused.
	return http.NewCrossOriginProtection().Handler(limited(byHost)), nil
}

// hostname is r.Host without its port.
func hostname(r *http.Request) string {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// limited bounds what a request can send.
func limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		next.ServeHTTP(w, r)
	})
}

// operatorsOnly stands for the authentication of those who run the application.
func (a *app) operatorsOnly(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(a.cfg.operator))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, ok := r.BasicAuth()
		got := sha256.Sum256([]byte(password))
		if !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="operators", charset="UTF-8"`)
			http.Error(w, "operators only", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// address is the tenant's, with the scheme and the port of r.
func (a *app) address(r *http.Request, id string) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	host := id + "." + a.cfg.base
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		host = net.JoinHostPort(host, port)
	}
	return scheme + "://" + host
}

func (a *app) welcome(w http.ResponseWriter, r *http.Request, notice string) {
	var all []Plan
	if err := a.db.WithContext(r.Context()).Order("cents").Find(&all).Error; err != nil { // main's: it needs no tenant
		a.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if notice != "" {
		status = http.StatusUnprocessableEntity
	}
	a.render(w, r, status, "welcome", map[string]any{"Plans": all, "Notice": notice, "Base": a.cfg.base, "Form": r.PostForm})
}

// render writes a page, or an error: never half of one.
func (a *app) render(w http.ResponseWriter, r *http.Request, status int, page string, data map[string]any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, page+".html", data); err != nil {
		a.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self' *."+a.cfg.base+":*; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = b.WriteTo(w) // the client may be gone
}

// fail logs err with its tenant, and answers with what it means to a client.
func (a *app) fail(w http.ResponseWriter, r *http.Request, err error) {
	a.log.WarnContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	tenancyhttp.Error(w, r, err)
}

func style(w http.ResponseWriter, r *http.Request) {
	http.ServeFileFS(w, r, files, "web/style.css")
}
