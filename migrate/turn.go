package migrate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// turn is one tenant's, from its claim until it is given back.
func (r *run) turn(ctx context.Context, c *crew, job Job) {
	res := job.Tenant()
	held, release := job.Hold(ctx)
	began := time.Now()
	changed, err := r.bring(held, c, job, &res)
	res.Took = time.Since(began)
	if err == nil {
		// Its connection is closed, so another can have its turn while this one
		// is written down.
		c.leave()
	} else {
		defer c.leave()
	}
	lost := errors.Is(context.Cause(held), ErrLost) || errors.Is(err, ErrLost)
	release()
	if changed {
		r.opt.Retire(res.Tenant)
	}
	if lost {
		r.tell(Event{Kind: EventLost, Result: res, Server: res.Server})
		return
	}
	// Not under ctx: what was done is written down also when that has ended.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	r.settle(ctx, ending, c, job, res, err)
}

// settle writes down what became of a turn.
func (r *run) settle(ctx, ending context.Context, c *crew, job Job, res Result, err error) {
	o := Outcome{Result: res}
	e := Event{Server: res.Server, Err: err}
	switch {
	case err == nil:
		o.Status, e.Kind = StatusDone, EventDone
		if res.To > r.target {
			e.Kind = EventAhead
		}
	case ctx.Err() != nil: // it is not the tenant's fault
		o.Again, o.Uncounted = true, true
	default:
		f := judge(err, job.Classify)
		o.Error, o.SQLState, o.Version, o.Key = err.Error(), f.sqlState, f.version, f.key
		switch {
		case f.server:
			c.unreachable(err)
			o.Again, o.Uncounted = true, true
		case f.transient && res.Attempts < r.opt.Attempts:
			// Many that waited for the same thing must not come back together.
			o.Again, o.After = true, jitter(r.opt.pause(res.Attempts))
			e.Kind, e.Pause = EventRetry, o.After
		default:
			o.Status, o.Attention, e.Kind = StatusFailed, !f.transient, EventFailed
		}
	}
	e.Result = o.Result
	same, err := job.End(ending, o)
	switch {
	case errors.Is(err, ErrLost):
		r.tell(Event{Kind: EventLost, Result: res, Server: res.Server})
		return
	case err != nil:
		r.stopRun("", fmt.Errorf("what became of tenant %s could not be written down; run it again: %w", res.Tenant, err))
		return
	case e.Kind != "":
		r.tell(e)
	}
	if o.Attention && r.opt.Breaker > 0 && same >= r.opt.Breaker {
		r.haltRun(ctx, fmt.Sprintf("%d tenants failed in the same way, the last was %s: %s", same, res.Tenant, o.Error))
	}
}

func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// bring brings one tenant to the target.
func (r *run) bring(ctx context.Context, c *crew, job Job, res *Result) (changed bool, err error) {
	defer func() {
		if p := recover(); p != nil { // of a migration written in Go
			err = fmt.Errorf("the migration panicked: %v\n%s", p, debug.Stack())
		}
	}()
	ex, err := job.Open(ctx, Lock{LockTimeout: r.opt.LockTimeout, StatementTimeout: r.opt.StatementTimeout})
	if err != nil {
		return false, err
	}
	defer func() {
		if closeErr := ex.Close(); err == nil && closeErr != nil && !changed {
			err = closeErr
		}
	}()
	c.reached()
	// Who was paused before he had the lock may have lost the tenant meanwhile.
	if err := job.Held(ctx); err != nil {
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
	res.Applied, err = r.m.Up(ctx, ex.DB, r.target)
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
