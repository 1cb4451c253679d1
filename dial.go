package tenancy

import (
	"container/list"
	"context"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

const (
	// A server that is full for a moment (SQLSTATE 53300) is tried again: a
	// backend outlives its client by some milliseconds, 119 at most when
	// measured.
	saturationPause    = 5 * time.Millisecond
	saturationMaxPause = 50 * time.Millisecond
	saturationPatience = 2 * time.Second
	// A dial that was told so no longer ago than this still waits for room, and
	// not for an answer.
	saturationNews = 500 * time.Millisecond
	hintSaturated  = "lower Limits.MaxConnsPerServer in each process, or raise the server's max_connections"
	// A wait for a replica that its caller made shorter than this says nothing of
	// the replica: a connect over some distance takes as long.
	hurried = 100 * time.Millisecond
	// A database that refused is not asked again for this long, and up to
	// two and a half times as long.
	refusalTime = 2 * time.Second
	// While a database refuses because it is another's, what was resolved is
	// doubted again this often at most: the Resolver may know better by now.
	doubtPause = time.Second / 2
)

// dialer is the driver.Connector of one tenant's sql.DB, and the tenant's share
// in its server.
type dialer struct {
	tenant    string
	connector driver.Connector
	identity  Identity // what each connection must say
	stale     func()   // called, under no lock, when one says otherwise
	engine    Engine   // may be nil
	server    *server
	lifetime  time.Duration // of a connection
	acquire   time.Duration // the longest wait for a connection
	replica   bool
	comment   string        // behind each statement; may be empty
	gone      chan struct{} // closed when the sql.DB is closed and no link is left

	open atomic.Int64 // links; written under server.mu

	// Guarded by server.mu.
	limit       int // of open
	dialing     int // of open
	waiters     list.List
	tickets     []*list.Element // in server.tickets, the oldest first
	refusal     error           // why no connect is tried until refusalEnds
	refusalEnds time.Duration
	doubtAt     time.Duration // no earlier is stale called for a refusal
	retired     bool          // no dial begins any more
	shut        bool          // sql.DB.Close has returned
	ended       bool          // gone is closed

	waits, exhausted uint64
	waited           time.Duration
}

var errRetired = errors.New("tenancy: the pool has been retired")

// Connect is called by database/sql when it has no idle connection.
func (d *dialer) Connect(ctx context.Context) (driver.Conn, error) {
	wait := d.acquire
	if end, ok := ctx.Deadline(); ok && d.replica {
		wait = min(wait, time.Until(end)/2) // who has less time keeps half of it for the primary
	}
	deadline := time.Now().Add(wait)
	for {
		got, err := d.server.get(ctx, d, deadline)
		if err != nil {
			if d.replica && wait < min(d.acquire, hurried) && !time.Now().Before(deadline) {
				err = hurriedError{err}
			}
			return nil, err
		}
		if got.fresh {
			return got.handle, nil
		}
		if got.handle.usable(ctx, got.idle) {
			return got.handle, nil
		}
	}
}

// Driver implements driver.Connector.
func (d *dialer) Driver() driver.Driver { return d.connector.Driver() }

// Close is called by sql.DB.Close when all else is done; for [Plugin.OpenDB]
// it is the user who closes.
func (d *dialer) Close() error {
	d.retire()
	s := d.server
	s.mu.Lock()
	d.shut = true
	d.endLocked()
	s.unlock()
	return nil
}

// retire lets no dial begin any more, and ends those that nobody waits for.
func (d *dialer) retire() {
	s := d.server
	s.mu.Lock()
	defer s.unlock()
	if d.retired {
		return
	}
	d.retired = true
	s.failLocked(d, errRetired)
	for _, l := range s.links {
		if l.dialer != d {
			continue
		}
		if l.handle == nil {
			l.cancel()
		} else if l.handle.spare && l.handle.take() != nil {
			go l.close()
		}
	}
}

func (d *dialer) endLocked() {
	if d.shut && d.open.Load() == 0 && !d.ended {
		d.ended = true
		d.server.pools--
		if d.replica {
			d.server.replicas--
		}
		close(d.gone)
	}
}

// connectLink opens the connection of l.
func (d *dialer) connectLink(ctx context.Context, l *link) (conn driver.Conn, err error) {
	defer recovered(d.tenant, "the Connector", &err)
	if pc, ok := d.connector.(PermitConnector); ok {
		conn, err = pc.ConnectPermit(ctx, l)
	} else {
		conn, err = d.connector.Connect(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case conn == nil:
		return nil, errors.New("tenancy: the Connector returned neither a connection nor an error")
	}
	if err := d.identity.check(ctx, conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// classify says whose fault a failed dial under ctx is.
func (d *dialer) classify(ctx context.Context, err error) Fault {
	switch {
	case err == nil:
		return FaultNone
	case ctx.Err() == context.DeadlineExceeded:
		return FaultServer // Limits.ConnectTimeout; no caller's deadline is in ctx
	case ctx.Err() != nil:
		return FaultCaller // the pool was retired
	case errors.Is(err, ErrWrongDatabase):
		return FaultTenant
	case d.engine != nil:
		return d.engine.Classify(err)
	}
	var netErr net.Error
	if errors.As(err, &netErr) {
		return FaultServer
	}
	return FaultNone
}

// dial connects l, under a ctx of its own, and gives the outcome to who waits.
func (s *server) dial(ctx context.Context, l *link) {
	d := l.dialer
	began := s.clock()
	conn, err := d.connectLink(ctx, l)
	fault := d.classify(ctx, err)
	for pause := saturationPause; fault == FaultSaturation && s.clock()-began < saturationPatience && s.wanted(l); {
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		if ctx.Err() != nil {
			break // the server has answered all the time
		}
		pause = min(2*pause, saturationMaxPause)
		conn, err = d.connectLink(ctx, l)
		fault = d.classify(ctx, err)
	}
	l.cancel()
	if err != nil {
		if errors.Is(err, ErrWrongDatabase) {
			d.stale() // first: the next statement of whoever is told asks the Resolver
		}
		s.dialFailed(l, err, fault, s.clock()-began)
		return
	}
	if s.dialled(l, conn) {
		return
	}
	l.conn = conn
	_ = l.close()
}

// wanted notes that the server was full for l, and reports whether l may try
// again: somebody waits for it still, and it has its token. A connection that
// was made, and failed in what is asked of a new one, has given that back.
func (s *server) wanted(l *link) bool {
	s.mu.Lock()
	defer s.unlock()
	s.count.saturated++
	l.fullAt = s.clock()
	return l.dialer.waiters.Len() > 0 && !l.gone
}

// dialled hands out a new connection, and reports whether anybody wants it.
func (s *server) dialled(l *link, conn driver.Conn) bool {
	s.mu.Lock()
	defer s.unlock()
	d := l.dialer
	d.dialing--
	d.refusal = nil
	s.answeredLocked()
	s.balanceLocked(d)
	if d.retired {
		return false
	}
	l.conn, l.born = conn, s.clock()
	h := newHandle(l)
	l.handle = h
	if d.waiters.Len() > 0 {
		s.deliverLocked(d, delivery{handle: h, fresh: true})
		return true
	}
	// Whoever wanted it was handed another, or gave up: the next caller takes
	// it. database/sql does not know it, so it is not closed by that.
	h.spare = true
	h.since.Store(int64(l.born))
	h.state.Store(handleIdle)
	time.AfterFunc(s.spare, func() {
		if h.take() != nil {
			_ = l.close()
		}
	})
	s.dispatchLocked()
	return true
}

// dialFailed ends the wait of whom the failure concerns.
func (s *server) dialFailed(l *link, err error, fault Fault, took time.Duration) {
	s.mu.Lock()
	defer s.unlock()
	d := l.dialer
	d.dialing--
	defer s.releaseLocked(l)
	if d.retired {
		return // the pool is retired, and nobody waits
	}
	s.count.failed++
	e := &Error{Op: "connect", Tenant: d.tenant, Err: ErrUnavailable, Cause: err}
	s.events = append(s.events, Event{Kind: EventFailed, Tenant: d.tenant, Server: s.name, Replica: d.replica, Err: e, Took: took})
	switch fault {
	case FaultTenant:
		s.answeredLocked()
		if errors.Is(err, ErrWrongDatabase) {
			e.Err = ErrWrongDatabase
			e.Hint = "the Resolver is asked again; if it still says so, look after what it returns"
		} else {
			e.Hint = "look after the tenant's database and login; it is tried again in some seconds"
		}
		now := s.clock()
		d.refusal, d.refusalEnds, d.doubtAt = e, now+refusalTime+rand.N(3*refusalTime/2), now+doubtPause
		s.failLocked(d, e)
	case FaultSaturation:
		s.answeredLocked()
		e.Err = ErrPoolExhausted
		e.Detail, e.Hint = "server "+s.title()+" has no connection left", hintSaturated
		s.failFirstLocked(d, e)
	case FaultServer:
		if l.born < s.answered {
			s.failFirstLocked(d, e) // old news
			return
		}
		s.failFirstLocked(d, e)
		s.blameLocked(d, err)
	default:
		s.failFirstLocked(d, e)
	}
}

func (s *server) failFirstLocked(d *dialer, err error) {
	if d.waiters.Len() > 0 {
		s.deliverLocked(d, delivery{err: err})
	}
}

func (s *server) failLocked(d *dialer, err error) {
	for d.waiters.Len() > 0 {
		s.deliverLocked(d, delivery{err: err})
	}
}
