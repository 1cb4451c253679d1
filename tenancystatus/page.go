package tenancystatus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Page serves the status of one plugin. It is made by [New], and may be used
// under several paths and from any goroutine.
type Page struct {
	cfg     Config
	since   time.Time
	history *history

	stop  chan struct{}
	close sync.Once
	done  sync.WaitGroup
}

// New returns the page and begins to gather what it shows. Make one when the
// process starts, and close it when it ends.
func New(cfg Config) (*Page, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Page{
		cfg:     cfg,
		since:   time.Now(),
		history: newHistory(int(cfg.History/cfg.Interval)+1, cfg.Servers),
		stop:    make(chan struct{}),
	}
	p.history.add(p.since, cfg.Plugin.Stats())
	p.done.Go(p.sample)
	return p, nil
}

// Close ends the gathering, and returns when that has ended. The page can still
// be served, and its history gets no longer. A second Close does nothing.
func (p *Page) Close() {
	p.close.Do(func() { close(p.stop) })
	p.done.Wait()
}

// sample notes the figures until Close.
func (p *Page) sample() {
	ticker := time.NewTicker(p.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.history.add(time.Now(), p.cfg.Plugin.Stats())
		}
	}
}

// ServeHTTP answers GET and HEAD, with the page or with JSON. It answers under
// each path that it is mounted at, and links to nothing but itself.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for what does not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the status can only be read", http.StatusMethodNotAllowed)
		return
	}
	var (
		body bytes.Buffer // whole before the first byte goes out, so that an error can be told
		kind string
		err  error
	)
	switch format := r.URL.Query().Get("format"); {
	case format == "json" || format == "" && wantsJSON(r):
		kind = "application/json"
		err = json.NewEncoder(&body).Encode(p.Report())
	case format == "" || format == "html":
		kind = "text/html; charset=utf-8"
		err = render(&body, newView(p.Report(), p.cfg))
	default:
		http.Error(w, "format is json or html", http.StatusBadRequest)
		return
	}
	if err != nil {
		http.Error(w, "tenancystatus: the page could not be made", http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", kind)
	h.Set("Content-Length", fmt.Sprint(body.Len()))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body.Bytes()) // who asked is gone
	}
}

// wantsJSON reports whether r accepts JSON and no HTML: a browser accepts HTML,
// and who accepts anything gets it.
func wantsJSON(r *http.Request) bool {
	accept := strings.ToLower(strings.Join(r.Header.Values("Accept"), ","))
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}
