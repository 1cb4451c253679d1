package tenancy

import (
	"context"
	"time"
)

// Checkpoint remembers which tenants had their turn in [Each]. A turn comes at
// least once: again if fn succeeded and its mark was lost, by a crash for
// instance. [FileCheckpoint] is one; a table in the main database is another,
// for sweeps that go on in another place. Its methods are called by several
// goroutines when turns run side by side.
type Checkpoint interface {
	// Done reports whether the tenant had its turn. It is asked before the
	// tenant's pool is opened. An error ends the sweep: it is safer than to do
	// everything again.
	Done(ctx context.Context, id string) (bool, error)
	// Mark says that the tenant's turn has succeeded, and returns when that
	// can't get lost any more. Its ctx has 10 seconds, also when the sweep's
	// ctx has ended. An error is a failure of this tenant.
	Mark(ctx context.Context, id string) error
}

// markTimeout bounds one Mark.
const markTimeout = 10 * time.Second

// skips reports whether the tenant has no turn: it had it, or nobody knows.
func (s *sweep) skips(ctx context.Context, id string) bool {
	if s.opt.Checkpoint == nil || checkID("each", id) != nil {
		return false
	}
	done, err := s.opt.Checkpoint.Done(ctx, id)
	if err != nil {
		s.goesOn(ctx, &Error{Op: "each", Tenant: id, Cause: err,
			Detail: "the checkpoint can't say whether it had its turn"})
		return true
	}
	if done {
		s.mu.Lock()
		s.out.Skipped++
		s.mu.Unlock()
	}
	return done
}

// mark remembers a turn that succeeded, also when ctx ended meanwhile.
func (s *sweep) mark(ctx context.Context, id string) error {
	if s.opt.Checkpoint == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	if err := s.opt.Checkpoint.Mark(ctx, id); err != nil {
		return &Error{Op: "each", Tenant: id, Cause: err,
			Detail: "its turn succeeded, but the checkpoint could not remember it",
			Hint:   "it has its turn again in the next sweep"}
	}
	return nil
}
