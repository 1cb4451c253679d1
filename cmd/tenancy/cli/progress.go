package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// progress tells on stderr how far a migration run is: by a bar on a terminal,
// elsewhere by lines. Failures are told at once.
type progress struct {
	err *talk
	bar *progressbar.ProgressBar // nil elsewhere, and before the run
	on  bool                     // a terminal

	began, told time.Time
}

// sayEvery is the pause between lines where there is no bar.
const sayEvery = 5 * time.Second

func newProgress(err *talk) *progress { return &progress{err: err, on: isTerminal(err.w)} }

// event is migrate.Options.OnEvent: it is called by one goroutine at a time.
func (p *progress) event(e migrate.Event) {
	if line := p.line(e); line != "" {
		p.err.sayf("%s", printable(line))
	}
	n := ended(e.Counts)
	total := n + e.Counts.Left
	switch {
	case e.Kind == migrate.EventBegun:
		p.began = time.Now()
		p.told = p.began
		p.err.sayf("migrating %s", tenants(total))
		if p.on && total > 0 {
			p.draw(total)
		}
	case p.bar != nil:
		p.step(e.Counts)
	case e.Kind == migrate.EventProgress && time.Since(p.told) >= sayEvery:
		p.told = time.Now()
		p.err.sayf("%s", p.far(e.Counts))
	case e.Kind == migrate.EventEnded && !p.on:
		p.err.sayf("%s", p.far(e.Counts))
	}
}

// line is what is told of an event at once; "" if nothing is.
func (p *progress) line(e migrate.Event) string {
	text := ""
	if e.Err != nil {
		text = ": " + strings.Join(strings.Fields(e.Err.Error()), " ")
	}
	switch e.Kind {
	case migrate.EventFailed:
		return fmt.Sprintf("failed: %s on %s%s", e.Result.Tenant, e.Server, text)
	case migrate.EventRetry:
		return fmt.Sprintf("again in %s: %s on %s%s", e.Pause.Round(100*time.Millisecond), e.Result.Tenant, e.Server, text)
	case migrate.EventLost:
		return fmt.Sprintf("lost: another process has taken %s over", e.Result.Tenant)
	case migrate.EventServerDown:
		return fmt.Sprintf("down: server %s%s", e.Server, text)
	case migrate.EventServerUp:
		return fmt.Sprintf("up: server %s", e.Server)
	case migrate.EventServerLeft:
		return fmt.Sprintf("left out: the tenants of server %s%s", e.Server, text)
	case migrate.EventCanaries:
		return "the canaries are done"
	case migrate.EventHalted:
		return "halted" + text
	}
	return ""
}

func ended(c migrate.Counts) int { return c.Done + c.Failed + c.Skipped }

// far says how far the run is.
func (p *progress) far(c migrate.Counts) string {
	n := ended(c)
	text := fmt.Sprintf("%d of %d, %d failed", n, n+c.Left, c.Failed+c.Skipped)
	took := time.Since(p.began)
	if n > 0 && c.Left > 0 && took > time.Second {
		text += fmt.Sprintf(", %.1f/s, %s left", float64(n)/took.Seconds(), (took / time.Duration(n) * time.Duration(c.Left)).Round(time.Second))
	}
	return text
}

func (p *progress) draw(total int) {
	p.err.mu.Lock()
	defer p.err.mu.Unlock()
	p.bar = progressbar.NewOptions(total,
		progressbar.OptionSetWriter(p.err.w),
		progressbar.OptionSetDescription("0 failed"),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("tenants"),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionUseANSICodes(false),
		progressbar.OptionThrottle(100*time.Millisecond),
	)
	_ = p.bar.RenderBlank()
	bar := p.bar
	p.err.hide = func() { _ = bar.Clear() }
	p.err.redraw = func() { _ = bar.RenderBlank() }
}

// step moves the bar. Its total changes when tenants come or go meanwhile.
func (p *progress) step(c migrate.Counts) {
	p.err.mu.Lock()
	defer p.err.mu.Unlock()
	n := ended(c)
	if total := max(n+c.Left, 1); total != p.bar.GetMax() {
		p.bar.ChangeMax(total)
	}
	p.bar.Describe(fmt.Sprintf("%d failed", c.Failed+c.Skipped))
	_ = p.bar.Set(n)
	if p.bar.IsFinished() { // it draws itself no more
		p.leave()
	}
}

// end leaves the bar as it is, and goes to the next line.
func (p *progress) end() {
	p.err.mu.Lock()
	defer p.err.mu.Unlock()
	if p.bar != nil {
		p.leave()
	}
}

func (p *progress) leave() {
	_ = p.bar.Exit()
	p.bar, p.err.hide, p.err.redraw = nil, nil, nil
	_, _ = io.WriteString(p.err.w, "\n")
}

// cells makes lines that hold what came from outside harmless to a terminal.
type cells struct{ w io.Writer }

func (c cells) Write(b []byte) (int, error) {
	lines := strings.Split(string(b), "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	_, err := io.WriteString(c.w, strings.Join(lines, "\n"))
	return len(b), err
}
