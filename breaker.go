package tenancy

import "time"

const (
	// breakAfter is how many attempts to connect must fail in a row.
	breakAfter = 5
	// The first probe of an open breaker comes soon, since most outages are
	// short; then the pauses double, up to a second, so that a server that is
	// back is noticed.
	firstProbe = 100 * time.Millisecond
	lastProbe  = time.Second
)

// breaker keeps callers from a server that can't be reached: once it is open,
// they fail at once instead of waiting for a connect that won't succeed, and
// one caller in each pause is let through to try. It knows connects only: what
// is connected stays in use. Times are those of server.clock.
//
// It belongs to a server, not to a pool, so that a tenant whose pool is opened
// anew does not start from scratch. Guarded by server.mu.
type breaker struct {
	failures int // in a row
	open     bool
	probeAt  time.Duration
	pause    time.Duration
	last     error // the latest failure
}

// allow reports whether a connect may be tried now.
func (b *breaker) allow(now time.Duration) bool {
	if !b.open {
		return true
	}
	if now < b.probeAt {
		return false
	}
	// By the clock and not by the outcome: a probe that hangs must not keep
	// the next one from finding the server alive.
	b.pause = min(2*b.pause, lastProbe)
	b.probeAt = now + b.pause
	return true
}

// failed notes a failed connect, and reports whether that opened the breaker.
func (b *breaker) failed(err error, now time.Duration) (opened bool) {
	b.failures++
	b.last = err
	if b.open || b.failures < breakAfter {
		return false
	}
	b.open = true
	b.pause = firstProbe
	b.probeAt = now + b.pause
	return true
}

// succeeded notes a connect that the server answered, and reports whether that
// closed the breaker.
func (b *breaker) succeeded() (closed bool) {
	closed = b.open
	*b = breaker{}
	return closed
}
