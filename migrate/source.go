package migrate

import (
	"context"
	"errors"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// Source lists the tenants of a fleet, and keeps the books of its runs. The
// catalog is one, whose runs any number of processes share; [List] is another,
// for everybody else's list of tenants.
type Source interface {
	// Begin begins a run, or joins the one that other processes are at. With
	// nothing to do it returns a nil Ledger, and in the Report what it looked
	// at; that must be cheap. ErrHalted says that a run for the same
	// migrations was halted.
	Begin(ctx context.Context, want Want) (Ledger, *Report, error)
}

// Want is what a run is to do.
type Want struct {
	Target      int64
	Fingerprint string
	// Only, if not empty, are the tenants that it is limited to.
	Only []string
	// Canaries are the tenants that come first.
	Canaries []string
	// Attempts is how often a tenant is tried.
	Attempts int
	// Retry takes tenants on that need attention, and goes on where a run was
	// halted.
	Retry bool
	// DryRun changes nothing: the Report lists what there is to do.
	DryRun bool
}

// Ledger is one run's book. Its methods may be called from any goroutine.
type Ledger interface {
	// Canaries returns the run's canaries: those of who began it.
	Canaries() []string
	// Servers returns the servers on which there is work left: of the canaries,
	// or of all tenants. Those that were skipped have none.
	Servers(ctx context.Context, canaries bool) ([]string, error)
	// Claim gives out a tenant of the server, so that nobody else gets it.
	Claim(ctx context.Context, server string, canaries bool) (Claim, error)
	// Skip notes that the tenants which are left on the server get no turn,
	// and why.
	Skip(ctx context.Context, server, reason string) error
	// Halt ends the run for all processes, and keeps these migrations from being
	// begun again: no tenant is given out any more.
	Halt(ctx context.Context, reason string) error
	// Counts says how far the run is.
	Counts(ctx context.Context) (Counts, error)
	// Results returns what became of those of ids that are in the fleet, also
	// before the run.
	Results(ctx context.Context, ids []string) ([]Result, error)
	// End closes the book if nothing is left, and returns the report. Its
	// Status is StatusHalted if the run was halted, with the Reason, and
	// otherwise not set.
	End(ctx context.Context) (*Report, error)
}

// Claim is what a [Ledger] gives out.
type Claim struct {
	// Job is nil if there is none now.
	Job Job
	// Next says, without a Job, when to ask again. Zero: never, nothing is
	// left.
	Next time.Duration
	// Halted is why the run was halted, if it was, and Ended why others have
	// ended it.
	Halted, Ended string
}

// Job is one tenant's turn.
type Job interface {
	// Tenant returns what is known of the tenant: Tenant, Server, Attempts, this
	// one counted, and the version From, which is -1 if it is not known.
	Tenant() Result
	// Hold keeps the tenant until release is called. The returned ctx ends
	// when it is lost, with the cause ErrLost.
	Hold(ctx context.Context) (held context.Context, release func())
	// Open opens the tenant's database, under its lock.
	Open(ctx context.Context, l Lock) (*Exclusive, error)
	// Held makes sure, once the database is open, that the tenant is still this
	// one's by the book: ErrLost if it is not.
	Held(ctx context.Context) error
	// End gives the tenant back, with what became of it. For a failure it
	// returns how many tenants of the run have failed in the same way, this
	// one counted. ErrLost says that another has the tenant now; then nothing
	// was written.
	End(ctx context.Context, o Outcome) (same int, err error)
	// Classify says whose fault an error is.
	Classify(err error) tenancy.Fault
}

// Outcome is how a [Job] ended.
type Outcome struct {
	Result
	// Again gives the tenant back for another try After that time. Uncounted
	// says that this one does not count.
	Again     bool
	After     time.Duration
	Uncounted bool
	// Unclean says that something of it may be left in the database: a
	// statement that goes on without its connection.
	Unclean bool
	// Attention says that trying again is of no use until somebody has done
	// something.
	Attention bool
	// Key is equal for failures that are the same.
	Key string
}

// Counts says how far a run is.
type Counts struct {
	// Done, Failed and Skipped are the turns that have ended, Left those that
	// have not.
	Done, Failed, Skipped, Left int
}

var (
	// ErrHalted is returned when a run was halted: by a failed canary, by the
	// breaker, or by a person. Ship a fix, or say Options.Retry.
	ErrHalted = errors.New("the migration run is halted")
	// ErrIncomplete is returned when a run ended and some tenants are not at
	// the target.
	ErrIncomplete = errors.New("some tenants are not at the target")
	// ErrStopped is returned when the caller has ended a run before its end.
	ErrStopped = errors.New("the migration run was stopped")
	// ErrBook is returned when the books of a run can't be read or written. Run
	// it again when they can.
	ErrBook = errors.New("the books of the migration run can't be kept")
	// ErrLost is returned by a [Job] whose tenant another process has taken
	// over.
	ErrLost = errors.New("another process has taken the tenant over")
)
