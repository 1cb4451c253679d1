package tenancy

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"gorm.io/gorm"
)

// EachOptions says how [Each] goes on. The zero value is useful.
type EachOptions struct {
	// StopOnError ends the walk at the first tenant that fails. Defaults to
	// false: the others get their turn.
	StopOnError bool
}

// EachError is returned by [Each] when it did not succeed for every tenant. It
// unwraps to every failure.
type EachError struct {
	// Done lists the tenants that succeeded, in the order of ids.
	Done []string
	// Failed lists those that did not, with their errors.
	Failed []TenantError
	// Cause is why the walk ended early: ctx's error, or the error that ids
	// gave. Nil when every id had its turn.
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

// Each runs fn for one tenant after the other, as [With] does, and goes on
// past those that fail. ids is read as it is needed. A panic in fn is not
// caught. It returns nil when all succeeded, else an [*EachError].
func Each(ctx context.Context, db *gorm.DB, ids iter.Seq2[string, error], opt EachOptions,
	fn func(ctx context.Context, id string, db *gorm.DB) error) error {
	var out EachError
	for id, err := range ids {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			out.Cause = err
			break
		}
		err = With(ctx, db, id, func(ctx context.Context, db *gorm.DB) error { return fn(ctx, id, db) })
		if err == nil {
			out.Done = append(out.Done, id)
			continue
		}
		out.Failed = append(out.Failed, TenantError{Tenant: id, Err: err})
		if opt.StopOnError {
			break
		}
	}
	if out.Cause == nil && len(out.Failed) == 0 {
		return nil
	}
	return &out
}
