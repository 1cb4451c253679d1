package migrate

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// crew is the work of a run on one server.
type crew struct {
	r    *run
	name string
	free chan struct{} // told when a turn has ended

	mu    sync.Mutex // guards the rest
	busy  int
	down  time.Time // since when the server can't be reached; zero if it can
	why   error
	next  time.Time // when it is tried again
	pause time.Duration
	// blamed counts the tenants' turns that the server spoilt, and answered is
	// when it was reached last: a tenant that is always to blame is not well
	// itself.
	blamed   map[string]blame
	answered time.Time
}

// blame is that of one tenant.
type blame struct {
	n     int
	since time.Time
}

// A server that can't be reached is tried again after probeMin, then more and
// more seldom up to probeMax, by one tenant at a time.
const (
	probeMin = 250 * time.Millisecond
	probeMax = 5 * time.Second
)

// server gives the tenants on one server their turns, until none is left or
// the server is given up.
func (r *run) server(ctx context.Context, name string, canaries bool) {
	c := &crew{r: r, name: name, free: make(chan struct{}, 1), blamed: map[string]blame{}}
	var turns sync.WaitGroup
	defer turns.Wait()
	for r.goesOn(ctx) {
		room, wait, gone := c.room()
		if gone {
			turns.Wait()
			c.giveUp(ctx)
			return
		}
		if !room {
			c.sleep(ctx, wait)
			continue
		}
		select {
		case r.overall <- struct{}{}:
		case <-r.ended:
			return
		case <-ctx.Done():
			return
		}
		claim, err := r.ledger.Claim(ctx, name, canaries)
		if err != nil || claim.Job == nil {
			<-r.overall
		}
		switch {
		case err != nil:
			if ctx.Err() == nil {
				r.stop(fmt.Errorf("%w: %w", ErrBook, err))
			}
			return
		case claim.Halted != "":
			r.halted(claim.Halted)
			return
		case claim.Ended != "":
			r.endedBy(claim.Ended)
			return
		case claim.Job == nil && claim.Next == 0:
			return
		case claim.Job == nil:
			c.sleep(ctx, min(claim.Next, ask))
			continue
		}
		c.enter()
		turns.Go(func() {
			r.turn(ctx, c, claim.Job)
		})
	}
}

// room reports whether a tenant may have its turn now. Otherwise it says how
// long to wait unless a turn ends, or that the server is given up.
func (c *crew) room() (ok bool, wait time.Duration, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down.IsZero() {
		return c.busy < c.r.opt.PerServer, time.Hour, false
	}
	switch {
	case c.busy > 0:
		return false, time.Hour, false
	case time.Since(c.down) >= c.r.opt.Patience:
		return false, 0, true
	}
	wait = time.Until(c.next)
	return wait <= 0, wait, false
}

func (c *crew) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy++
}

// leave gives the places of a turn back.
func (c *crew) leave() {
	<-c.r.overall
	c.mu.Lock()
	c.busy--
	c.mu.Unlock()
	c.wake()
}

// wake lets the crew look for more.
func (c *crew) wake() {
	select {
	case c.free <- struct{}{}:
	default:
	}
}

// sleep waits until a turn on the server ends, the run does, or d is over.
func (c *crew) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.free:
	case <-c.r.ended:
	case <-ctx.Done():
	}
}

// unreachable notes that tenant could not be tried because of the server, and
// reports whether it is rather the tenant: the server has answered others
// while this one failed again and again.
func (c *crew) unreachable(tenant string, err error) (itself bool) {
	c.mu.Lock()
	now := time.Now()
	b := c.blamed[tenant]
	if b.n++; b.n == 1 {
		b.since = now
	}
	c.blamed[tenant] = b
	if b.n >= c.r.opt.Attempts && c.answered.After(b.since) {
		c.mu.Unlock()
		return true
	}
	first := c.down.IsZero()
	switch {
	case first:
		c.down, c.pause = now, probeMin
	case now.After(c.next): // it was tried
		c.pause = min(2*c.pause, probeMax)
	}
	c.why, c.next = err, now.Add(c.pause)
	c.mu.Unlock()
	if first {
		c.r.tell(Event{Kind: EventServerDown, Server: c.name, Err: err})
	}
	return false
}

// reached notes that the server has answered.
func (c *crew) reached() {
	c.mu.Lock()
	was := !c.down.IsZero()
	c.down, c.answered = time.Time{}, time.Now()
	c.mu.Unlock()
	if was {
		c.r.tell(Event{Kind: EventServerUp, Server: c.name})
		c.wake() // there is room for more
	}
}

// giveUp leaves out the server's tenants.
func (c *crew) giveUp(ctx context.Context) {
	c.mu.Lock()
	err := c.why
	c.mu.Unlock()
	if skipErr := c.r.ledger.Skip(ctx, c.name, fmt.Sprintf("server %s can't be reached: %v", c.name, err)); skipErr != nil && ctx.Err() == nil {
		c.r.stop(fmt.Errorf("%w: %w", ErrBook, skipErr))
		return
	}
	c.r.tell(Event{Kind: EventServerLeft, Server: c.name, Err: err})
}
