package migrate

import (
	"context"
	"errors"
	"time"
)

// Options says how a run goes on. The zero value is useful.
type Options struct {
	// Workers is how many tenants this process migrates at a time, and
	// PerServer how many of these may be on one server. Each has one
	// connection, sometimes two, beside the application's. Default to 32 and 8:
	// 8 keep a server with two processors busy; with a network in between, or
	// more processors, more pay.
	Workers, PerServer int

	// Canaries are the ids of tenants that come first: your own, a small and a
	// large one, an old one. The others get their turn when all canaries are
	// done. If one fails the run halts. Those that are not in the fleet, or not
	// among Only, are ignored. Of a shared run, they are those of the first
	// process that names some.
	Canaries []string
	// AfterCanaries is asked when all canaries are done, and may take its time:
	// wait, look at the error rate. An error halts the run. Each process of a
	// shared run asks its own. Defaults to nil, which goes on.
	AfterCanaries func(ctx context.Context, canaries []Result) error
	// Breaker halts the run when that many tenants have failed in the same way:
	// in the same migration, with the same SQLSTATE, for a reason that does not
	// go away by itself. Defaults to 3; negative means never.
	Breaker int

	// Attempts is how often a tenant is tried whose failure may go away by
	// itself: a lock that others hold, a deadlock, no connection to be had.
	// Defaults to 5. What can't go away by itself is tried once.
	Attempts int
	// Backoff is the pause before the second attempt; each further one is twice
	// as long, up to a minute. Defaults to 1 second.
	Backoff time.Duration
	// LockTimeout bounds how long a statement waits for a lock that the
	// application holds, on a table for instance, and with it how long the
	// application's statements queue up behind it. Defaults to 5 seconds;
	// negative means no bound. A migration may set its own: SET LOCAL
	// lock_timeout.
	LockTimeout time.Duration
	// StatementTimeout bounds each statement. Defaults to 15 minutes; negative
	// means no bound.
	StatementTimeout time.Duration
	// Patience is how long a server that can't be reached is waited for, before
	// its tenants are skipped. Defaults to 1 minute; negative means not at all.
	Patience time.Duration

	// Only limits the run to these tenants. Defaults to all.
	Only []string
	// Retry also takes on the tenants that need attention since these very
	// migrations failed there, and goes on with a run that was halted.
	Retry bool
	// DryRun changes nothing: the report lists what there is to do.
	DryRun bool

	// Stop, when it is closed, ends the run in good order: those that have
	// their turn end it, and nobody else gets one. When the ctx ends, what runs
	// is cancelled, and rolled back as far as the database can.
	Stop <-chan struct{}
	// OnEvent is told what happens. It is called by one goroutine at a time,
	// and holds up the run.
	OnEvent func(Event)
	// Retire is told of each tenant whose schema has changed, so that
	// connections which remember plans of the old one are given up:
	// Plugin.Evict. Not needed with the catalog, which tells every process.
	Retire func(id string)
}

// Event is what happens in a run.
type Event struct {
	Kind EventKind
	// Result is the tenant's, for those that are about one.
	Result Result
	// Server and Err are those of the event.
	Server string
	Err    error
	// Pause is the time until the next attempt of EventRetry.
	Pause time.Duration
	// Counts are the run's, of all processes. They are up to date in
	// EventBegun, EventProgress and EventEnded, and about right in the others.
	Counts Counts
}

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventBegun      EventKind = "begun"       // the run
	EventProgress   EventKind = "progress"    // once a second
	EventDone       EventKind = "done"        // a tenant is at the target
	EventRetry      EventKind = "retry"       // a tenant's attempt failed; there will be another
	EventFailed     EventKind = "failed"      // a tenant failed
	EventLost       EventKind = "lost"        // another process has taken a tenant over
	EventAhead      EventKind = "ahead"       // a tenant's schema is newer than the target
	EventServerDown EventKind = "server_down" // Server can't be reached; see Err
	EventServerUp   EventKind = "server_up"   // and can be again
	EventServerLeft EventKind = "server_left" // Server's tenants are skipped
	EventCanaries   EventKind = "canaries"    // all canaries are done
	EventHalted     EventKind = "halted"      // see Err
	EventEnded      EventKind = "ended"       // the run, for this process
)

const longestPause = time.Minute

func (o Options) withDefaults() Options {
	ints := []struct {
		n    *int
		zero int
	}{{&o.Workers, 32}, {&o.PerServer, 8}, {&o.Breaker, 3}, {&o.Attempts, 5}}
	for _, x := range ints {
		if *x.n == 0 {
			*x.n = x.zero
		}
	}
	durations := []struct {
		d    *time.Duration
		zero time.Duration
	}{
		{&o.Backoff, time.Second},
		{&o.LockTimeout, 5 * time.Second},
		{&o.StatementTimeout, 15 * time.Minute},
		{&o.Patience, time.Minute},
	}
	for _, x := range durations {
		if *x.d == 0 {
			*x.d = x.zero
		}
	}
	o.LockTimeout = max(o.LockTimeout, 0)
	o.StatementTimeout = max(o.StatementTimeout, 0)
	o.Patience = max(o.Patience, 0)
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	if o.Retire == nil {
		o.Retire = func(string) {}
	}
	return o
}

// Validate says what is wrong with o. [Run] calls it.
func (o Options) Validate() error {
	switch {
	case o.Workers < 0 || o.PerServer < 0 || o.Attempts < 0:
		return errors.New("migrate: Workers, PerServer and Attempts can't be negative")
	case o.Backoff < 0:
		return errors.New("migrate: Backoff is negative")
	case o.DryRun && o.Retry:
		return errors.New("migrate: DryRun changes nothing, and Retry does; say one of them")
	}
	return nil
}

// pause is the time before the next attempt.
func (o Options) pause(attempt int) time.Duration {
	d := o.Backoff
	for i := 1; i < attempt && d < longestPause; i++ {
		d *= 2
	}
	return min(d, longestPause)
}
