package tenancy

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// server is what the tenants of one server share: the budget of connections,
// the queue for them, and the breaker.
//
// Each physical connection holds a token (a [link] counted in used) from
// before its dial until it is truly gone. database/sql sees no limit, so it
// never makes anybody wait: when it has no idle connection it calls
// [dialer.Connect] under its caller's ctx, and all waiting is done here, with a
// deadline. A caller waits for whatever comes first: a connection of its tenant
// that comes back, which is handed over as it is, or a token and the dial.
//
// Dials are not bound to who caused them. A caller who gives up leaves its dial
// to the next, and a dial's outcome tells of the server, not of somebody's
// deadline.
type server struct {
	name    string // "" where it is not known; then it has no breaker
	size    int    // of the budget
	acquire time.Duration
	connect time.Duration
	spare   time.Duration // how long a connection nobody fetched is kept
	observe func(Event)
	start   time.Time

	// waiting is the number of waiters. It is written under mu, and read
	// without by who gives back a connection: that has marked it idle before,
	// and a waiter looks for idle ones after it was counted, so one of them
	// sees the other.
	waiting atomic.Int64

	mu       sync.Mutex
	used     int       // tokens
	closing  int       // of these, on their way back to make room
	links    []*link   // one for each token
	tickets  list.List // of *dialer: who may dial, in turn
	callers  map[*dialer]struct{}
	breaker  breaker
	answered time.Duration // when the server last answered a connect
	wake     time.Duration // when tick will run; 0 for not at all
	pools    int
	events   []Event // told by unlock
	count    serverCount
}

// serverCount are the figures of ServerStats that only grow.
type serverCount struct {
	waits, exhausted, dials, failed, reclaimed, handed, tripped, saturated uint64
	waited                                                                 time.Duration
}

// waiter is one call of dialer.Connect.
type waiter struct {
	ctx   context.Context
	since time.Duration
	short bool // nothing was free when it came
	at    *list.Element
	ready chan delivery // has room for the one delivery
}

// delivery is what a waiter gets: a handle that is busy, or an error.
type delivery struct {
	handle *handle
	fresh  bool // dialled for it
	idle   bool // it was idle, for who knows how long
	err    error
}

func (s *server) clock() time.Duration { return time.Since(s.start) }

// unlock releases mu and then tells the observer.
func (s *server) unlock() {
	events := s.events
	s.events = nil
	s.mu.Unlock()
	for _, e := range events {
		s.observe(e)
	}
}

// get returns a connection for d: an idle one of its own, or the first that
// comes.
func (s *server) get(ctx context.Context, d *dialer, deadline time.Time) (delivery, error) {
	w := &waiter{ctx: ctx, since: s.clock(), ready: make(chan delivery, 1)}
	s.mu.Lock()
	if d.refused {
		s.unlock()
		return delivery{}, errRetired
	}
	s.enlistLocked(d, w) // first: see waiting
	if l := s.takeIdleLocked(d); l != nil {
		s.count.handed++
		s.deliverLocked(d, delivery{handle: s.rehandleLocked(l), idle: true}) // to w, or who came before
	}
	select {
	case got := <-w.ready:
		s.unlock()
		return got, nil
	default:
	}
	if err := s.refusalLocked(d, w.since); err != nil {
		s.leaveLocked(d, w)
		s.unlock()
		return delivery{}, err
	}
	s.balanceLocked(d)
	s.dispatchLocked()
	if d.dialing < d.waiters.Len() {
		w.short = true
		s.count.waits++
		d.waits++
	}
	s.unlock()

	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case got := <-w.ready:
		return got, got.err
	case <-ctx.Done():
	case <-timer.C:
	}
	s.mu.Lock()
	select {
	case got := <-w.ready: // at the last moment; nobody else would use it
		s.unlock()
		return got, got.err
	default:
	}
	err := s.lackLocked(ctx, d, w.since)
	s.leaveLocked(d, w)
	s.waitedLocked(d, w, err)
	s.unlock()
	return delivery{}, err
}

// refusalLocked returns why d can't connect now, whatever is free.
func (s *server) refusalLocked(d *dialer, now time.Duration) error {
	if d.refusal != nil && now < d.refusedTill {
		return d.refusal
	}
	if s.breaker.allow(now, d.dialing > 0) {
		return nil
	}
	return s.downLocked(d)
}

// downLocked is the error of d's callers while the breaker is open.
func (s *server) downLocked(d *dialer) error {
	return &Error{Op: "connect", Tenant: d.tenant, Err: ErrUnavailable, Cause: s.breaker.last,
		Detail: fmt.Sprintf("server %s could not be reached %d times in a row", s.name, s.breaker.failures),
		Hint:   "it is tried again every second; look after the server"}
}

// lackLocked is the error of a waiter that has waited for too long. It says
// what it waited for.
func (s *server) lackLocked(ctx context.Context, d *dialer, since time.Duration) error {
	e := &Error{Op: "connect", Tenant: d.tenant, Err: ErrPoolExhausted, Cause: causeOf(ctx)}
	took := (s.clock() - since).Round(time.Millisecond)
	switch {
	case int(d.open.Load()) >= d.limit && d.dialing == 0:
		e.Detail = fmt.Sprintf("waited %s: the tenant's %d connections are all in use, and %d callers wait", took, d.limit, d.waiters.Len())
		e.Hint = "close Rows and end transactions sooner, or raise Database.MaxConns or Limits.MaxConnsPerTenant"
	case s.used >= s.size && d.dialing < d.waiters.Len():
		e.Detail = fmt.Sprintf("waited %s: this process's %d connections to server %s are all in use, and %d callers wait", took, s.size, s.title(), s.waiting.Load())
		e.Hint = "close Rows and end transactions sooner, hold no connection while waiting for another, or raise Limits.MaxConnsPerServer"
	case d.dialing > 0 && s.dialedForLocked(d) < (s.clock()-since)/2:
		// Somebody let go at the last moment: it was not the server that took
		// the time.
		e.Detail = fmt.Sprintf("waited %s: this process's %d connections to server %s were all in use until just now", took, s.size, s.title())
		e.Hint = "close Rows and end transactions sooner, hold no connection while waiting for another, or raise Limits.MaxConnsPerServer"
	default:
		e.Err = ErrUnavailable
		e.Detail = fmt.Sprintf("still connecting to server %s after %s", s.title(), took)
		e.Hint = "look after the server, or give the connect more time"
	}
	return e
}

// dialedForLocked is how long the oldest of d's dials has been under way.
func (s *server) dialedForLocked(d *dialer) (longest time.Duration) {
	for _, l := range s.links {
		if l.dialer == d && l.handle == nil {
			longest = max(longest, s.clock()-l.born)
		}
	}
	return longest
}

// causeOf is ctx.Err() with the cause, where that says more.
func causeOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// title is the server's name in a message.
func (s *server) title() string {
	if s.name == "" {
		return "(unnamed)"
	}
	return s.name
}

// enlistLocked adds w to the waiters of d.
func (s *server) enlistLocked(d *dialer, w *waiter) {
	w.at = d.waiters.PushBack(w)
	s.callers[d] = struct{}{}
	s.waiting.Add(1)
}

// leaveLocked takes w out again.
func (s *server) leaveLocked(d *dialer, w *waiter) {
	d.waiters.Remove(w.at)
	if d.waiters.Len() == 0 {
		delete(s.callers, d)
	}
	s.waiting.Add(-1)
	s.balanceLocked(d) // no ticket outlives its waiter
}

// waitedLocked accounts for the end of w's wait, if it had to wait.
func (s *server) waitedLocked(d *dialer, w *waiter, err error) {
	if !w.short {
		return
	}
	took := s.clock() - w.since
	s.count.waited += took
	d.waited += took
	if errors.Is(err, ErrPoolExhausted) && !errors.Is(err, context.Canceled) {
		s.count.exhausted++
		d.exhausted++
	}
	s.events = append(s.events, Event{Kind: EventWaited, Tenant: d.tenant, Server: s.name, Err: err, Took: took})
}

// deliverLocked ends the wait of d's first waiter.
func (s *server) deliverLocked(d *dialer, got delivery) {
	w := d.waiters.Front().Value.(*waiter)
	s.leaveLocked(d, w)
	s.waitedLocked(d, w, got.err)
	w.ready <- got
}

// balanceLocked gives d a ticket for each waiter that no dial is under way for
// and that its limit has room for, and takes back what is too many.
func (s *server) balanceLocked(d *dialer) {
	for d.dialing+len(d.tickets) < d.waiters.Len() && int(d.open.Load())+len(d.tickets) < d.limit {
		d.tickets = append(d.tickets, s.tickets.PushBack(d))
	}
	for n := len(d.tickets); n > 0 && (d.dialing+n > d.waiters.Len() || int(d.open.Load())+n > d.limit); n-- {
		s.tickets.Remove(d.tickets[n-1])
		d.tickets = d.tickets[:n-1]
	}
}

// dispatchLocked turns free tokens into dials, in the order of the tickets, and
// makes room for the tickets that are left.
func (s *server) dispatchLocked() {
	for s.used < s.size && s.tickets.Len() > 0 {
		d := s.tickets.Remove(s.tickets.Front()).(*dialer)
		d.tickets = d.tickets[1:]
		d.dialing++
		d.open.Add(1)
		s.used++
		s.count.dials++
		l := &link{dialer: d, born: s.clock(), at: len(s.links)}
		s.links = append(s.links, l)
		ctx := context.WithoutCancel(d.waiters.Front().Value.(*waiter).ctx)
		ctx, l.cancel = context.WithTimeout(ctx, s.connect)
		go s.dial(ctx, l)
	}
	s.reclaimLocked()
}

// release gives l's token back.
func (s *server) release(l *link) {
	s.mu.Lock()
	s.releaseLocked(l)
	s.unlock()
}

func (s *server) releaseLocked(l *link) {
	if l.gone {
		return
	}
	l.gone = true
	if l.hangUp != nil {
		l.hangUp.Stop()
	}
	last := s.links[len(s.links)-1]
	s.links[l.at], last.at = last, l.at
	s.links[len(s.links)-1] = nil
	s.links = s.links[:len(s.links)-1]
	s.used--
	if l.closing {
		s.closing--
		l.late.Stop()
	}
	d := l.dialer
	d.open.Add(-1)
	d.endLocked()
	s.balanceLocked(d)
	s.dispatchLocked()
}

// setLimit changes how many connections d may have.
func (s *server) setLimit(d *dialer, n int) {
	s.mu.Lock()
	d.limit = n
	s.balanceLocked(d)
	s.dispatchLocked()
	s.unlock()
}
