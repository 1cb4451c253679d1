package tenancytest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// runTimeout bounds a call of the handler, by its ctx.
	runTimeout = 30 * time.Second
	// patience is how long a paused call lets the other one run: that may
	// wait for what the paused one holds, as it does for a mutex.
	patience = 200 * time.Millisecond
	// maxPauses is at how many steps of a call another one comes in between.
	maxPauses = 12
	// maxWaits is how often a call may have had to wait for the paused one
	// before no more are tried.
	maxWaits = 2
	// Of the calls at the same time, for each tenant.
	workers, rounds = 3, 4
)

// call calls the handler for s.
func (i *isolated) call(s *side, r *run) {
	ctx, cancel := context.WithTimeout(s.ctx, runTimeout)
	defer cancel()
	r.call(ctx, i.handler)
}

// inTurn calls the handler for one tenant at a time: whatever happens to the
// other's database meanwhile is a leak.
func (i *isolated) inTurn() error {
	as := [...]string{"the first call", "the second call, after one for the other tenant"}
	for _, words := range as {
		for _, s := range i.sides {
			r := newRun(s.id, words)
			i.call(s, r)
			entries := i.ledger.take()
			if err := i.judge(entries, r, r); err != nil || len(i.leaks) > 0 {
				return err
			}
			if words == as[0] {
				if r.err != nil {
					return fmt.Errorf("the handler failed as %s: %w", s.id, r.err)
				}
				own := func(e entry) bool { return e.tenant == s.id }
				if !slices.ContainsFunc(entries, own) {
					return fmt.Errorf("the handler ran no statement in the database of %s: is its ctx passed on to where the statements are?", s.id)
				}
			}
			s.last = r.steps
		}
	}
	return nil
}

// interleaved puts a whole call for one tenant into each of the first steps of
// a call for the other.
func (i *isolated) interleaved() error {
	for _, s := range i.sides {
		for at, waited := 1, 0; at <= min(s.last, maxPauses) && waited < maxWaits; at++ {
			outer := newRun(s.id, fmt.Sprintf("a call with one for the other tenant before its step %d", at))
			inner := newRun(i.other(s).id, "a call in the middle of one for the other tenant")
			outer.pauseAt = at
			free, err := i.nest(s, outer, inner)
			if err != nil || len(i.leaks) > 0 {
				return err
			}
			if !free {
				waited++
			}
		}
	}
	return nil
}

// nest runs inner while outer, of s, is paused. After that outer is alone, if
// inner was free to go on and did not have to wait for it.
func (i *isolated) nest(s *side, outer, inner *run) (free bool, err error) {
	go i.call(s, outer)
	select {
	case <-outer.paused:
	case <-outer.done: // it takes fewer steps than before
	}
	go i.call(i.other(s), inner)
	limit := time.NewTimer(patience)
	defer limit.Stop()
	var (
		alone   *run
		looked  error
		entries []entry
	)
	select {
	case <-inner.done:
		alone = outer
		entries = i.ledger.take()
		looked = i.look(i.other(s)) // not at the one that outer may have locked
	case <-limit.C:
	}
	close(outer.resume)
	<-outer.done
	<-inner.done
	if looked != nil {
		return false, looked
	}
	i.searchEntries(entries, nil)
	return alone != nil, i.judge(i.ledger.take(), alone, outer, inner)
}

// concurrent calls the handler for both at the same time.
func (i *isolated) concurrent() error {
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		all []*run
	)
	for range workers {
		for _, s := range i.sides {
			wg.Go(func() {
				for range rounds {
					r := newRun(s.id, "a call at the same time as others")
					go i.call(s, r) // a goroutine of its own, which the handler may end
					<-r.done
					mu.Lock()
					all = append(all, r)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return i.judge(i.ledger.take(), nil, all...)
}
