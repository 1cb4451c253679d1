package tenancy

import (
	"container/list"
	"context"
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
	pools    int           // of primaries and replicas
	replicas int           // of pools
	events   []Event       // told by unlock
	count    serverCount
}

// serverCount are the figures of ServerStats that only grow.
type serverCount struct {
	waits, exhausted, dials, failed, reclaimed, handed, tripped, saturated uint64
	waited                                                                 time.Duration
}

func (s *server) clock() time.Duration { return time.Since(s.start) }

// title is the server's name in a message.
func (s *server) title() string {
	if s.name == "" {
		return "(unnamed)"
	}
	return s.name
}

// unlock releases mu and then tells the observer.
func (s *server) unlock() {
	events := s.events
	s.events = nil
	s.mu.Unlock()
	for _, e := range events {
		s.observe(e)
	}
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
