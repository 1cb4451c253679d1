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
// As long as the failures are of one tenant alone, they may be that tenant's own
// fault (its TLS, a database that is being copied), and the breaker is open for
// that tenant alone.
//
// It belongs to a server, not to a pool, so that a tenant whose pool is opened
// anew does not start from scratch. Guarded by server.mu.
type breaker struct {
	failures int // in a row
	open     bool
	first    string // the tenant whose connect failed first
	latest   string // and the one whose connect failed last
	several  bool   // others than first have failed too
	told     bool   // that the server is down
	probeAt  time.Duration
	pause    time.Duration
	last     error // of latest
}

// concerns reports whether the breaker is open for tenant.
func (b *breaker) concerns(tenant string) bool {
	return b.open && (b.several || tenant == b.first)
}

// allow reports whether tenant may try to connect now. Who is dialling already,
// or has failed last, lets others go first.
func (b *breaker) allow(tenant string, dialling bool, now time.Duration) bool {
	if !b.concerns(tenant) {
		return true
	}
	from := b.probeAt
	switch {
	case dialling:
		from += lastProbe
	case tenant == b.latest:
		from += firstProbe
	}
	if now < from {
		return false
	}
	// By the clock and not by the outcome: a probe that hangs must not keep
	// the next one from finding the server alive.
	b.pause = min(2*b.pause, lastProbe)
	b.probeAt = now + b.pause
	return true
}

// failed notes a failed connect of tenant.
func (b *breaker) failed(tenant string, err error, now time.Duration) {
	if b.failures == 0 {
		b.first = tenant
	}
	b.failures++
	b.several = b.several || tenant != b.first
	b.latest, b.last = tenant, err
	if !b.open && b.failures >= breakAfter {
		b.open = true
		b.pause = firstProbe
		b.probeAt = now + b.pause
	}
}

// succeeded notes a connect that the server answered. It reports whether the
// server was said to be down.
func (b *breaker) succeeded() (wasDown bool) {
	wasDown = b.told
	*b = breaker{}
	return wasDown
}

// answeredLocked notes that the server has answered a connect, be it with a
// refusal: it is not down.
func (s *server) answeredLocked() {
	s.answered = s.clock()
	if s.breaker.succeeded() {
		s.events = append(s.events, Event{Kind: EventServerUp, Server: s.name})
	}
}

// blameLocked notes a failed connect of d that may be the server's fault, and
// ends the wait of those for whom the breaker is open now.
func (s *server) blameLocked(d *dialer, err error) {
	if s.name == "" {
		return
	}
	s.breaker.failed(d.tenant, err, s.clock())
	if s.breaker.open && (s.breaker.several || s.pools == 1) && !s.breaker.told {
		s.breaker.told = true
		s.count.tripped++
		s.events = append(s.events, Event{Kind: EventServerDown, Server: s.name, Err: err})
	}
	for d := range s.callers {
		if s.breaker.concerns(d.tenant) && !d.waitsForOwn() {
			s.failLocked(d, s.downLocked(d))
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
			s.blameLocked(l.dialer, errHangUp)
		}
		l.hangUp.Reset(hangUpTime)
	})
}

// downLocked is the error of d's callers while the breaker is open for them.
func (s *server) downLocked(d *dialer) error {
	what := "server %s could not be reached %d times in a row"
	if !s.breaker.several {
		what = "the tenant's connects to server %s failed %d times in a row"
	}
	return &Error{Op: "connect", Tenant: d.tenant, Err: ErrUnavailable, Cause: s.breaker.last,
		Detail: fmt.Sprintf(what, s.name, s.breaker.failures),
		Hint:   "it is tried again every second; look after the server"}
}
