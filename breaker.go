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
	last     error  // the latest failure
	first    string // the tenant whose connect failed first
	sure     bool   // these failures are not of one tenant alone
}

// allow reports whether a connect may be tried now. Who is dialling already
// lets others go first.
func (b *breaker) allow(now time.Duration, dialling bool) bool {
	if !b.open {
		return true
	}
	if now < b.probeAt || dialling && now < b.probeAt+lastProbe {
		return false
	}
	// By the clock and not by the outcome: a probe that hangs must not keep
	// the next one from finding the server alive.
	b.pause = min(2*b.pause, lastProbe)
	b.probeAt = now + b.pause
	return true
}

// failed notes a failed connect of tenant, and reports whether that opened the
// breaker. If doubtful, it may be the tenant's own fault: others must have
// failed too.
func (b *breaker) failed(tenant string, doubtful bool, err error, now time.Duration) (opened bool) {
	if b.failures == 0 {
		b.first = tenant
	}
	b.sure = b.sure || !doubtful || b.first != tenant
	b.failures++
	b.last = err
	if b.open || b.failures < breakAfter || !b.sure {
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
