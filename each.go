package tenancy

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"gorm.io/gorm"
)

// EachOptions says how [Each] goes on. The zero value is useful.
type EachOptions struct {
	// StopOnError starts no further turn once a tenant has failed; those that
	// run are not cut. Defaults to false: the others get their turn.
	StopOnError bool
	// Parallel is how many tenants have their turn at a time. Defaults to 1,
	// which runs fn on the caller's goroutine.
	Parallel int
	// PerServer is how many of these may be on one server, so that a sweep
	// leaves connections to others. Defaults to a quarter of the server's
	// budget ([Limits.MaxConnsPerServer]), and at least 1.
	PerServer int
	// Progress, if set, is told of each turn that has ended. It is called by
	// one goroutine at a time, and holds up the sweep.
	Progress func(EachProgress)
	// Checkpoint, if set, remembers who had their turn, so that a sweep that
	// was interrupted goes on where it ended. Defaults to none: each id has its
	// turn.
	Checkpoint Checkpoint
}

// EachProgress tells of a turn that has ended, and of how far the sweep is.
type EachProgress struct {
	// Tenant had its turn, for Took; Err is how it failed.
	Tenant string
	Err    error
	Took   time.Duration
	// Done and Failed count the turns that have ended, this one too. Skipped
	// counts the tenants so far that have none, since the Checkpoint says that
	// they had it in an earlier sweep.
	Done, Failed, Skipped int
}

// EachError is returned by [Each] when it did not succeed for every tenant. It
// unwraps to every failure.
type EachError struct {
	// Done lists the tenants that succeeded, in the order in which they ended.
	Done []string
	// Failed lists those that did not, with their errors.
	Failed []TenantError
	// Skipped is the number of those that had their turn in an earlier sweep.
	Skipped int
	// Cause is why the walk ended early: ctx's error, or the error that ids
	// or the Checkpoint gave. Nil when every id had its turn, or StopOnError ended it.
	Cause error
}

// TenantError is the failure of one tenant.
type TenantError struct {
	Tenant string
	Err    error
}

// Error names the first few failures.
func (e *EachError) Error() string {
	const most = 3
	var b strings.Builder
	fmt.Fprintf(&b, "tenancy: each: %d tenants done, %d failed", len(e.Done), len(e.Failed))
	for i, f := range e.Failed {
		if i == most {
			fmt.Fprintf(&b, "; and %d more", len(e.Failed)-most)
			break
		}
		fmt.Fprintf(&b, "; %s: %v", quoteID(f.Tenant), f.Err)
	}
	if e.Skipped > 0 {
		fmt.Fprintf(&b, "; %d had their turn before", e.Skipped)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, "; ended early: %v", e.Cause)
	}
	return b.String()
}

// Unwrap returns the cause and the failures.
func (e *EachError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed)+1)
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	for _, f := range e.Failed {
		errs = append(errs, f.Err)
	}
	return errs
}

// Each runs fn for every tenant that ids gives, as [With] does: the tenant's
// turn in a sweep. It goes on past those that fail, and returns nil when all
// succeeded, else an [*EachError].
//
// Turns begin in the order of ids, give or take Parallel, but those whose server
// has its share at work already are put aside for others. ids is read only so
// far ahead as that needs, by 1,024 tenants at most. When ctx ends, no turn begins
// any more, and Each returns when those that run have.
//
// A sweep does not disturb the tenants that are in use: one whose pool is not
// open gets a pool of at most two connections, which is closed at the end of
// its turn and takes nobody's place, and no tenant counts as used by it.
//
// A panic of fn ends the sweep and is passed on.
func Each(ctx context.Context, db *gorm.DB, ids iter.Seq2[string, error], opt EachOptions,
	fn func(ctx context.Context, id string, db *gorm.DB) error) error {
	p, ok := From(db)
	if !ok {
		return errNotUsed("each")
	}
	s := &sweep{p: p, db: db, opt: opt, fn: fn, halt: func() {}, shares: make(map[*server]*share)}
	s.room.L = &s.mu
	if opt.Parallel <= 1 {
		s.inTurn(ctx, ids)
	} else {
		s.atOnce(ctx, ids)
	}
	if s.panicked != nil {
		panic(s.panicked)
	}
	if s.out.Cause == nil && len(s.out.Failed) == 0 {
		return nil
	}
	return &s.out
}
