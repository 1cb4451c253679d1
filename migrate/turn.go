package migrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// turn is one tenant's, from its claim until it is given back.
type turn struct {
	r      *run
	c      *crew
	job    Job
	res    Result
	opened bool // its database was
}

func (r *run) turn(ctx context.Context, c *crew, job Job) {
	t := &turn{r: r, c: c, job: job, res: job.Tenant()}
	held, release := job.Hold(ctx)
	began := time.Now()
	var changed bool
	err := hook("the migration", func() (err error) {
		changed, err = t.bring(held)
		return err
	})
	t.res.Took = time.Since(began)
	if err == nil {
		// Its connection is closed, so another can have its turn while this one
		// is written down.
		c.leave()
		defer c.wake() // now that it is
	} else {
		defer c.leave()
	}
	lost := errors.Is(context.Cause(held), ErrLost) || errors.Is(err, ErrLost)
	release()
	if changed {
		if err := hook("Retire", func() error { r.opt.Retire(t.res.Tenant); return nil }); err != nil {
			r.stop(err)
		}
	}
	if lost {
		r.tell(Event{Kind: EventLost, Result: t.res, Server: t.res.Server})
		return
	}
	// Not under ctx: what was done is written down also when that has ended.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	t.settle(ctx, ending, err)
}

// settle writes down what became of the turn.
func (t *turn) settle(ctx, ending context.Context, err error) {
	r, res := t.r, t.res
	o, e := t.outcome(ctx, err)
	same, err := t.job.End(ending, o)
	switch {
	case errors.Is(err, ErrLost):
		r.tell(Event{Kind: EventLost, Result: res, Server: res.Server})
		return
	case err != nil:
		r.stop(fmt.Errorf("%w: what became of tenant %s could not be written down: %w", ErrBook, res.Tenant, err))
		return
	case e.Kind != "":
		r.tell(e)
	}
	if o.Attention && r.opt.Breaker > 0 && same >= r.opt.Breaker {
		r.haltRun(ctx, fmt.Sprintf("%d tenants failed in the same way, the last was %s: %s", same, res.Tenant, o.Error))
	}
}

// outcome says what to do about the turn's end, and what to tell of it.
func (t *turn) outcome(ctx context.Context, err error) (o Outcome, e Event) {
	o.Result = t.res
	o.Error, o.SQLState, o.Version = "", "", 0 // of an earlier attempt
	e.Server, e.Err = t.res.Server, err
	again := func(after time.Duration) { o.Again, o.Uncounted, o.After = true, true, after }
	switch {
	case err == nil:
		o.Status, e.Kind = StatusDone, EventDone
		if t.res.To > t.r.target {
			e.Kind = EventAhead
		}
	case ctx.Err() != nil, errors.Is(err, ErrBook): // not the tenant's fault
		o.Unclean = t.opened && judge(err, true, t.job.Classify).lost
		again(0)
	default:
		f := judge(err, t.opened, t.job.Classify)
		o.Error, o.SQLState, o.Version, o.Key = err.Error(), f.sqlState, f.version, f.key
		o.Unclean = t.opened && f.lost
		if !f.server {
			t.c.reached()
		}
		switch {
		case f.server && !t.c.unreachable(t.res.Tenant, err):
			// Others are tried first, in case that it is this one's fault.
			again(min(probeMax, max(probeMin, t.r.opt.Patience/4)))
		case f.transient && !f.server && t.res.Attempts < t.r.opt.Attempts:
			// Many that waited for the same thing must not come back together.
			o.Again, o.After = true, jitter(t.r.opt.pause(t.res.Attempts))
			e.Kind, e.Pause = EventRetry, o.After
		default:
			o.Status, o.Attention, e.Kind = StatusFailed, !f.transient, EventFailed
		}
	}
	e.Result = o.Result
	return o, e
}

func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// bring brings one tenant to the target.
func (t *turn) bring(ctx context.Context) (changed bool, err error) {
	r, res := t.r, &t.res
	ex, err := t.job.Open(ctx, Lock{LockTimeout: r.opt.LockTimeout, StatementTimeout: r.opt.StatementTimeout})
	if err != nil {
		return false, err
	}
	defer func() {
		if closeErr := ex.Close(); err == nil && closeErr != nil && !changed {
			err = closeErr
		}
	}()
	t.opened = true
	t.c.reached()
	// Who was paused before he had the lock may have lost the tenant meanwhile.
	if err := t.job.Held(ctx); err != nil {
		return false, err
	}
	if res.From < 0 { // nobody keeps a book
		version, err := r.m.Current(ctx, ex.DB)
		if err != nil {
			return false, err
		}
		if res.From, res.To = version, version; version >= r.target {
			return false, nil
		}
	}
	err = hook("the migration", func() (err error) {
		res.Applied, err = r.m.Up(ctx, ex.DB, r.target)
		return err
	})
	if err == nil && len(res.Applied) > 0 {
		res.To = r.target
		return true, nil
	}
	// Where there was nothing to do the book is wrong: somebody died before he
	// could write, or a newer program was here. What failed may have changed
	// something too, without a transaction.
	now, currentErr := r.m.Current(ctx, ex.DB)
	if currentErr == nil {
		res.To = now
	}
	switch {
	case currentErr == nil && now > r.target:
		return false, nil // which an Up may say in its own way
	case err != nil:
		return true, err
	case currentErr != nil:
		return false, currentErr
	case now < r.target:
		return false, fmt.Errorf("the Migrator's Up(%d) has nothing to do, and Current is %d: mend the Migrator", r.target, now)
	}
	return false, nil
}
