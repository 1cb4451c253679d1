package tenancy

import (
	"cmp"
	"slices"
	"time"
)

// quantum is how long a new connection serves its tenant before it is given up
// for another's. Without it, every statement under pressure would need a
// connect of its own.
const quantum = 20 * time.Millisecond

// closeTime is how long at most a connection that makes room is waited for.
const closeTime = 100 * time.Millisecond

// reclaimLocked closes idle connections, the least recently used first, for
// those who hold a ticket and find no token. A connection that has not served
// its quantum is left until it has.
func (s *server) reclaimLocked() {
	need := s.tickets.Len() - s.closing
	if need <= 0 {
		return
	}
	now := s.clock()
	var ripe []*handle
	ripens := time.Duration(-1)
	for _, l := range s.links {
		if !l.isIdle() {
			continue
		}
		if at := l.born + quantum; at > now {
			if ripens < 0 || at < ripens {
				ripens = at
			}
			continue
		}
		ripe = append(ripe, l.handle)
	}
	slices.SortFunc(ripe, func(a, b *handle) int { return cmp.Compare(a.since.Load(), b.since.Load()) })
	for _, h := range ripe {
		if need == 0 {
			return
		}
		if l := h.take(); l != nil {
			need--
			s.closingLocked(l)
			go l.close()
		}
	}
	if ripens >= 0 && (s.wake == 0 || ripens < s.wake) {
		s.wake = ripens
		time.AfterFunc(ripens-now, s.tick)
	}
}

// closingLocked counts l as about to make room, for a while: a close that hangs
// must not keep who waits from another idle connection.
func (s *server) closingLocked(l *link) {
	s.count.reclaimed++
	if l.gone {
		return // its connector has noticed before
	}
	l.closing = true
	s.closing++
	l.late = time.AfterFunc(closeTime, func() {
		s.mu.Lock()
		defer s.unlock()
		if l.closing && !l.gone {
			l.closing = false
			s.closing--
			s.dispatchLocked()
		}
	})
}

// tick looks for idle connections that have served their quantum meanwhile.
func (s *server) tick() {
	s.mu.Lock()
	if s.clock() >= s.wake {
		s.wake = 0
	}
	s.dispatchLocked()
	s.unlock()
}

// takeIdleLocked takes the most recently used idle connection of d. One with
// open statements can't change hands, since those would stay on it for ever: it
// is closed, and makes room.
func (s *server) takeIdleLocked(d *dialer) *link {
	for {
		var best *handle
		for _, l := range s.links {
			if l.dialer == d && l.isIdle() && (best == nil || l.handle.since.Load() > best.since.Load()) {
				best = l.handle
			}
		}
		if best == nil {
			return nil
		}
		l := best.take()
		if l == nil {
			continue // somebody was faster
		}
		if best.Statements() == 0 {
			return l
		}
		s.closingLocked(l)
		go l.close()
	}
}

// rehandleLocked gives a link whose handle is dead a new one, which is busy.
func (s *server) rehandleLocked(l *link) *handle {
	l.handle = newHandle(l)
	return l.handle
}

// idle reports whether database/sql may keep h, which comes back from use. If
// it returns true, h may be taken at any time.
func (s *server) idle(h *handle) bool {
	now := s.clock()
	d := h.link.dialer
	// database/sql counts a lifetime from when it got the handle, and a link
	// may have had several.
	if d.lifetime > 0 && now-h.link.born > d.lifetime {
		return false
	}
	h.since.Store(int64(now))
	h.state.Store(handleIdle)
	return s.waiting.Load() == 0 || s.share(h, now)
}

// share is the rest of idle when somebody waits for a connection.
func (s *server) share(h *handle, now time.Duration) bool {
	s.mu.Lock()
	defer s.unlock()
	if !h.state.CompareAndSwap(handleIdle, handleBusy) {
		return false // somebody was faster
	}
	l, d := h.link, h.link.dialer
	if front := s.tickets.Front(); front != nil && front.Value != any(d) &&
		s.used >= s.size && s.tickets.Len() > s.closing && now-l.born >= quantum {
		s.closingLocked(l)
		return false // database/sql closes it now
	}
	if d.waiters.Len() == 0 {
		h.state.Store(handleIdle)
		s.reclaimLocked() // when it has served its quantum
		return true
	}
	if h.Statements() > 0 {
		return false // can't change hands, so the waiter has to dial
	}
	h.state.Store(handleDead)
	s.count.handed++
	if len(d.tickets) > 0 { // this was its turn
		s.tickets.MoveToBack(d.tickets[0])
		d.tickets = append(d.tickets[1:], d.tickets[0])
	}
	s.deliverLocked(d, delivery{handle: s.rehandleLocked(l)})
	return false // it has a new handle
}
