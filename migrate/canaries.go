package migrate

import (
	"context"
	"fmt"
	"time"
)

// canaries gives the canaries their turn, and reports whether the others may
// have theirs.
func (r *run) canaries(ctx context.Context) bool {
	ids := r.ledger.Canaries()
	if len(ids) == 0 {
		return r.goesOn(ctx)
	}
	r.stage(ctx, true)
	results, ok := r.canaryResults(ctx, ids)
	if !ok {
		return false
	}
	r.tell(Event{Kind: EventCanaries})
	if r.opt.AfterCanaries != nil {
		if err := hook("AfterCanaries", func() error { return r.opt.AfterCanaries(ctx, results) }); err != nil {
			if ctx.Err() == nil {
				r.haltRun(ctx, "after the canaries: "+err.Error())
			}
			return false
		}
	}
	return r.goesOn(ctx)
}

// canaryResults waits until all canaries are done, and halts the run when one
// is not going to be. One that this process can't reach may be done by another
// one, for which it waits as long as for a server.
func (r *run) canaryResults(ctx context.Context, ids []string) ([]Result, bool) {
	for began := time.Now(); r.goesOn(ctx); {
		results, err := r.ledger.Results(ctx, ids)
		if err != nil {
			if ctx.Err() == nil {
				r.stop(fmt.Errorf("%w: %w", ErrBook, err))
			}
			return nil, false
		}
		waiting := false
		for _, c := range results {
			switch {
			case c.Status == StatusFailed, c.Status == StatusSkipped && time.Since(began) >= r.opt.Patience:
				r.haltRun(ctx, fmt.Sprintf("canary %s: %s", c.Tenant, c.Error))
				return nil, false
			case c.Status != StatusDone && c.Status != "":
				waiting = true
			}
		}
		if !waiting {
			return results, true
		}
		t := time.NewTimer(ask)
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-r.ended:
		}
		t.Stop()
	}
	return nil, false
}
