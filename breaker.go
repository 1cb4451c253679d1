package tenancy

import (
	"errors"
	"fmt"
	"time"
)

const (
	// breakAfter is how many attempts to connect must fail in a row.
	breakAfter = 5
	// The first probe of an open breaker comes soon, since most outages are
	// short; then the pauses double, up to a second, so that a server that is
	// back is noticed.
	firstProbe = 100 * time.Millisecond
	lastProbe  = time.Second
	// How long a server may take to hang up. Mostly it takes milliseconds.
	hangUpTime = time.Second
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

// answeredLocked notes that the server has answered a connect, be it with a
// refusal: it is not down.
func (s *server) answeredLocked() {
	s.answered = s.clock()
	if s.breaker.succeeded() {
		s.events = append(s.events, Event{Kind: EventServerUp, Server: s.name})
	}
}

// blameLocked notes a failure that may be the server's. When connects of one
// tenant only are slow, it may be that tenant's database: it is being copied, or
// dropped.
func (s *server) blameLocked(d *dialer, err error, slow bool) {
	if s.name == "" {
		return
	}
	if s.breaker.failed(d.tenant, slow && s.pools > 1, err, s.clock()) {
		s.count.tripped++
		s.events = append(s.events, Event{Kind: EventServerDown, Server: s.name, Err: err})
	}
	if s.breaker.open {
		for d := range s.callers {
			s.failLocked(d, func(d *dialer) error { return s.downLocked(d) })
		}
	}
}

var errHangUp = errors.New("the server does not hang up connections that were closed, and no other is left to try")

// awaitHangUp watches l, which was closed. A server that is silent while its
// whole budget is taken can't be told by a connect, as there is none; and a
// cancelled statement's connection stays for as long as pgx waits for the
// server, up to 15 seconds. So each that is late counts like a connect that
// failed, but only if somebody waits and there is no room to try.
func (s *server) awaitHangUp(l *link) {
	s.mu.Lock()
	defer s.unlock()
	if l.gone || l.hangUp != nil {
		return
	}
	l.hangUp = time.AfterFunc(hangUpTime, func() {
		s.mu.Lock()
		defer s.unlock()
		if l.gone {
			return
		}
		if s.used >= s.size && s.tickets.Len() > 0 {
			s.blameLocked(l.dialer, errHangUp, true)
		}
		l.hangUp.Reset(hangUpTime)
	})
}

// downLocked is the error of d's callers while the breaker is open.
func (s *server) downLocked(d *dialer) error {
	return &Error{Op: "connect", Tenant: d.tenant, Err: ErrUnavailable, Cause: s.breaker.last,
		Detail: fmt.Sprintf("server %s could not be reached %d times in a row", s.name, s.breaker.failures),
		Hint:   "it is tried again every second; look after the server"}
}
