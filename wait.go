package tenancy

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

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

// get returns a connection for d: an idle one of its own, or the first that
// comes.
func (s *server) get(ctx context.Context, d *dialer, deadline time.Time) (delivery, error) {
	w := &waiter{ctx: ctx, since: s.clock(), ready: make(chan delivery, 1)}
	s.mu.Lock()
	if d.retired {
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
		doubt := w.since >= d.doubtAt && errors.Is(err, ErrWrongDatabase)
		if doubt {
			d.doubtAt = w.since + doubtPause
		}
		s.unlock()
		if doubt {
			d.stale()
		}
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
	if d.refusal != nil && now < d.refusalEnds {
		return d.refusal
	}
	if d.waitsForOwn() || s.breaker.allow(d.tenant, d.dialing > 0, now) {
		return nil
	}
	return s.downLocked(d)
}

// waitsForOwn reports whether d's callers wait for connections that it has: the
// breaker says nothing of those.
func (d *dialer) waitsForOwn() bool { return d.dialing == 0 && int(d.open.Load()) >= d.limit }

// lackLocked is the error of a waiter that has waited for too long. It says
// what it waited for.
func (s *server) lackLocked(ctx context.Context, d *dialer, since time.Duration) error {
	e := &Error{Op: "connect", Tenant: d.tenant, Err: ErrPoolExhausted, Cause: causeOf(ctx)}
	took := (s.clock() - since).Round(time.Millisecond)
	const full = "close Rows and end transactions sooner, hold no connection while waiting for another, or raise Limits.MaxConnsPerServer"
	switch {
	case int(d.open.Load()) >= d.limit && d.dialing == 0:
		e.Detail = fmt.Sprintf("waited %s: the tenant's %d connections are all in use, and %d callers wait", took, d.limit, d.waiters.Len())
		e.Hint = "close Rows and end transactions sooner, or raise Database.MaxConns or Limits.MaxConnsPerTenant"
	case s.used >= s.size && d.dialing < d.waiters.Len():
		e.Detail = fmt.Sprintf("waited %s: this process's %d connections to server %s are all in use, and %d callers wait", took, s.size, s.title(), s.waiting.Load())
		e.Hint = full
	case d.dialing > 0 && s.dialedForLocked(d) < (s.clock()-since)/2:
		// Somebody let go at the last moment: it was not the server that took
		// the time.
		e.Detail = fmt.Sprintf("waited %s: this process's %d connections to server %s were all in use until just now", took, s.size, s.title())
		e.Hint = full
	case s.saturatedLocked(d):
		e.Detail, e.Hint = fmt.Sprintf("waited %s: server %s has no connection left", took, s.title()), hintSaturated
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

// saturatedLocked reports whether the server has just said, to a dial of d, that
// it has no connection left.
func (s *server) saturatedLocked(d *dialer) bool {
	now := s.clock()
	return slices.ContainsFunc(s.links, func(l *link) bool {
		return l.dialer == d && l.handle == nil && l.fullAt > 0 && now-l.fullAt < saturationNews
	})
}

// causeOf is ctx.Err() with the cause, where that says more.
func causeOf(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == err {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
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
	s.events = append(s.events, Event{Kind: EventWaited, Tenant: d.tenant, Server: s.name, Replica: d.replica, Err: err, Took: took})
}

// deliverLocked ends the wait of d's first waiter.
func (s *server) deliverLocked(d *dialer, got delivery) {
	w := d.waiters.Front().Value.(*waiter)
	s.leaveLocked(d, w)
	s.waitedLocked(d, w, got.err)
	w.ready <- got
}
