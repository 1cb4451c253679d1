package migrate

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
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
	if err := opt.Validate(); err != nil {
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
		if report.Status == StatusStopped {
			return report, fmt.Errorf("%w: %s", report.Err(), report.Reason)
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

	telling sync.Mutex // held while OnEvent is called

	mu      sync.Mutex // guards the rest
	halt    string     // why the run was halted
	stopped string     // why others have ended it
	broken  error      // the books can't be kept, or a hook panicked
	over    bool       // ended is closed
	counts  Counts
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
	return r.finish(ctx)
}

// finish reads the report, and says how the run ended.
func (r *run) finish(ctx context.Context) (*Report, error) {
	// Not under ctx, whose end may be why the run is at its end.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	report, err := r.ledger.End(ending)
	if err != nil {
		// All that is known is what this process has seen.
		report = &Report{Target: r.target, Fingerprint: r.fingerprint, Began: r.began, Status: StatusStopped,
			Done: r.counts.Done, Failed: r.counts.Failed, Left: r.counts.Left}
		if r.broken == nil {
			r.broken = fmt.Errorf("%w: %w", ErrBook, err)
		}
	} else {
		report.conclude(r.isStopped(ctx) || r.stopped != "" || r.broken != nil)
	}
	report.Took = time.Since(r.began)
	var why error
	switch {
	case r.broken != nil:
		if report.Status == StatusDone || report.Status == StatusPartial {
			report.Status = StatusStopped
		}
		why = r.broken
	case report.Status == StatusStopped && r.stopped != "":
		why = errors.New(r.stopped)
	case report.Status == StatusStopped && ctx.Err() != nil:
		why = context.Cause(ctx)
	}
	r.mu.Lock()
	r.counts = report.counts()
	r.mu.Unlock()
	r.tell(Event{Kind: EventEnded})
	if why == nil {
		return report, report.Err()
	}
	if report.Reason == "" {
		report.Reason = why.Error()
	}
	return report, fmt.Errorf("%w: %w", report.Err(), why)
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

// noMore lets no turn begin any more.
func (r *run) noMore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.over = true
		close(r.ended)
	}
}

func (r *run) refresh(ctx context.Context) {
	if counts, err := r.ledger.Counts(ctx); err == nil {
		r.mu.Lock()
		r.counts = counts
		r.mu.Unlock()
	}
}

func (r *run) tell(e Event) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
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
	r.mu.Unlock()
	if err := hook("OnEvent", func() error { r.opt.OnEvent(e); return nil }); err != nil {
		r.stop(err)
	}
}

// hook calls somebody's function. What panics there must not leave leases and
// connections behind.
func hook(name string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked: %v\n%s", name, p, debug.Stack())
		}
	}()
	return fn()
}

// stop ends the run for this process, because the books can't be kept, or a
// hook panicked.
func (r *run) stop(err error) {
	r.mu.Lock()
	if r.broken == nil {
		r.broken = err
	}
	r.mu.Unlock()
	r.noMore()
}

// halted ends the run for this process, because it is halted for all.
func (r *run) halted(reason string) {
	r.mu.Lock()
	first := r.halt == ""
	if first {
		r.halt = reason
	}
	r.mu.Unlock()
	r.noMore()
	if first {
		r.tell(Event{Kind: EventHalted, Err: errors.New(reason)})
	}
}

// over ends the run for this process, because others have ended it.
func (r *run) endedBy(reason string) {
	r.mu.Lock()
	r.stopped = reason
	r.mu.Unlock()
	r.noMore()
}

// haltRun ends it for all processes.
func (r *run) haltRun(ctx context.Context, reason string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	if err := r.ledger.Halt(ctx, reason); err != nil {
		r.stop(fmt.Errorf("%w: the run could not be halted (%s): %w", ErrBook, reason, err))
		return
	}
	r.halted(reason)
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

// stage works until no tenant of the stage is left on any server. Servers are
// looked for again: one can get its first tenant meanwhile.
func (r *run) stage(ctx context.Context, canaries bool) {
	// Servers may wait, and must not when the run is over.
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.ended:
			cancel()
		case <-asking.Done():
		}
	}()
	for r.goesOn(ctx) {
		servers, err := r.ledger.Servers(asking, canaries)
		if err != nil {
			if r.goesOn(ctx) {
				r.stop(fmt.Errorf("%w: %w", ErrBook, err))
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
