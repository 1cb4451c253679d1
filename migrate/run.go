package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Run brings all tenants of src to m's target, and returns what was done. The
// error is nil only if all are there; otherwise it is ErrIncomplete, ErrHalted
// or ErrStopped with the ctx's error, or that of the books themselves. The
// Report is there with any of them, but for an error of the books at the
// beginning.
//
// Tenants whose migration failed don't stop the others. To go on after a run
// was stopped, its process killed, or what was wrong is mended, run it again.
func Run(ctx context.Context, src Source, m Migrator, opt Options) (*Report, error) {
	if m == nil {
		return nil, errors.New("migrate: there is no Migrator")
	}
	if err := opt.validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	r := &run{m: m, opt: opt, began: time.Now(), overall: make(chan struct{}, opt.Workers), ended: make(chan struct{})}
	r.target, r.fingerprint = m.Target()
	ledger, report, err := src.Begin(ctx, Want{
		Target: r.target, Fingerprint: r.fingerprint, Only: opt.Only, Canaries: opt.Canaries, Attempts: opt.Attempts,
		Retry: opt.Retry, DryRun: opt.DryRun,
	})
	if err != nil {
		return report, err
	}
	if ledger == nil {
		report.Took = time.Since(r.began)
		report.conclude(false)
		if opt.DryRun && report.Left > 0 {
			report.Status = StatusPending
		}
		return report, report.Err()
	}
	r.ledger = ledger
	return r.run(ctx)
}

// run is one process's part in a run.
type run struct {
	m           Migrator
	opt         Options
	target      int64
	fingerprint string
	ledger      Ledger
	began       time.Time
	overall     chan struct{} // a place for each of Workers
	ended       chan struct{} // closed when no turn begins any more

	mu     sync.Mutex // guards the rest; held while OnEvent is called
	halt   string     // why the run was halted
	broken error      // the books can't be kept
	once   sync.Once  // closes ended
	counts Counts
}

func (r *run) run(ctx context.Context) (*Report, error) {
	watched := make(chan struct{})
	watching, stopWatching := context.WithCancel(ctx)
	go func() {
		defer close(watched)
		r.watch(watching)
	}()
	r.refresh(ctx)
	r.tell(Event{Kind: EventBegun})
	if r.canaries(ctx) {
		r.stage(ctx, false)
	}
	stopWatching()
	<-watched
	// Not under ctx, whose end may be why the run is at its end.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	stopped := r.isStopped(ctx)
	report, err := r.ledger.End(ending)
	if err != nil {
		report = &Report{Target: r.target, Fingerprint: r.fingerprint, Began: r.began}
		err = errors.Join(r.broken, err)
	} else {
		err = r.broken
	}
	report.Took = time.Since(r.began)
	report.conclude(stopped || r.broken != nil)
	switch {
	case r.broken != nil:
		report.Reason = r.broken.Error()
	case report.Status == StatusStopped && ctx.Err() != nil:
		report.Reason = context.Cause(ctx).Error()
	}
	r.counts = report.counts()
	r.tell(Event{Kind: EventEnded})
	if err != nil {
		return report, errors.Join(report.Err(), err)
	}
	if report.Status == StatusStopped && ctx.Err() != nil {
		return report, fmt.Errorf("%w: %w", report.Err(), context.Cause(ctx))
	}
	return report, report.Err()
}

const (
	// ledgerTimeout bounds what is written into the books after the ctx's end.
	ledgerTimeout = 10 * time.Second
	// ask is how often it is looked for work that others have, and progress how
	// often the counts are read.
	ask      = 500 * time.Millisecond
	progress = time.Second
)

// watch ends the run when the caller stops it, and tells of its progress.
func (r *run) watch(ctx context.Context) {
	ticker := time.NewTicker(progress)
	defer ticker.Stop()
	stop := r.opt.Stop
	for {
		select {
		case <-ctx.Done():
			return
		case <-stop:
			r.noMore()
			stop = nil // told once
		case <-ticker.C:
			r.refresh(ctx)
			r.tell(Event{Kind: EventProgress})
		}
	}
}

func (r *run) noMore() { r.once.Do(func() { close(r.ended) }) }

func (r *run) refresh(ctx context.Context) {
	if counts, err := r.ledger.Counts(ctx); err == nil {
		r.mu.Lock()
		r.counts = counts
		r.mu.Unlock()
	}
}

func (r *run) tell(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Kind {
	case EventDone, EventAhead:
		r.counts.Done++
		r.counts.Left--
	case EventFailed:
		r.counts.Failed++
		r.counts.Left--
	}
	r.counts.Left = max(0, r.counts.Left)
	e.Counts = r.counts
	r.opt.OnEvent(e)
}

// stopRun ends the run for this process, halted or because the books can't be
// kept.
func (r *run) stopRun(halt string, broken error) {
	r.mu.Lock()
	first := r.halt == "" && r.broken == nil
	if first {
		r.halt, r.broken = halt, broken
	}
	r.mu.Unlock()
	r.noMore()
	if first && halt != "" {
		r.tell(Event{Kind: EventHalted, Err: errors.New(halt)})
	}
}

// haltRun ends it for all processes.
func (r *run) haltRun(ctx context.Context, reason string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	if err := r.ledger.Halt(ctx, reason); err != nil {
		r.stopRun("", fmt.Errorf("the run could not be halted (%s): %w", reason, err))
		return
	}
	r.stopRun(reason, nil)
}

func (r *run) goesOn(ctx context.Context) bool {
	select {
	case <-r.ended:
		return false
	default:
		return ctx.Err() == nil
	}
}

// isStopped reports whether the caller has ended the run.
func (r *run) isStopped(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	select {
	case <-r.opt.Stop:
		return true
	default:
		return false
	}
}

// canaries gives the canaries their turn, and reports whether the others may
// have theirs.
func (r *run) canaries(ctx context.Context) bool {
	ids := r.ledger.Canaries()
	if len(ids) == 0 {
		return r.goesOn(ctx)
	}
	r.stage(ctx, true)
	if !r.goesOn(ctx) {
		return false
	}
	results, err := r.ledger.Results(ctx, ids)
	if err != nil {
		r.stopRun("", err)
		return false
	}
	for _, c := range results {
		if c.Status != StatusDone {
			r.haltRun(ctx, fmt.Sprintf("canary %s: %s", c.Tenant, c.Error))
			return false
		}
	}
	r.tell(Event{Kind: EventCanaries})
	if r.opt.AfterCanaries != nil {
		if err := r.opt.AfterCanaries(ctx, results); err != nil {
			if ctx.Err() == nil {
				r.haltRun(ctx, "after the canaries: "+err.Error())
			}
			return false
		}
	}
	return r.goesOn(ctx)
}

// stage works until no tenant of the stage is left on any server. Servers are
// looked for again: one can get its first tenant meanwhile.
func (r *run) stage(ctx context.Context, canaries bool) {
	for r.goesOn(ctx) {
		servers, err := r.ledger.Servers(ctx, canaries)
		if err != nil {
			if ctx.Err() == nil {
				r.stopRun("", err)
			}
			return
		}
		if len(servers) == 0 {
			return
		}
		var crews sync.WaitGroup
		for _, name := range servers {
			crews.Go(func() { r.server(ctx, name, canaries) })
		}
		crews.Wait()
	}
}
