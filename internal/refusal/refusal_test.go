package refusal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
)

// What refuses looks like a tenant that isn't there, whatever else it is.
func TestNotFoundLeads(t *testing.T) {
	for _, p := range precedence {
		for _, first := range []error{ErrForbidden, tenancy.ErrTenantNotFound} {
			require.Equal(t, NotFound, Of(errors.Join(p.err, first)), p.err)
			require.Equal(t, NotFound, Of(&tenancy.Error{Err: p.err, Cause: first}), p.err)
		}
	}
}

func TestOf(t *testing.T) {
	for err, want := range map[error]Meaning{
		tenancy.ErrTenantMismatch:                         Internal,
		errors.New("boom"):                                Internal,
		fmt.Errorf("orders: %w", tenancy.ErrTenantBehind): Behind,
		&tenancy.Error{Err: tenancy.ErrUnavailable, Cause: context.DeadlineExceeded}:              Unavailable,
		&tenancy.Error{Err: tenancy.ErrPoolExhausted, Cause: context.Canceled}:                    Unavailable,
		fmt.Errorf("%w: %w", context.DeadlineExceeded, errors.New("boom")):                        DeadlineExceeded,
		fmt.Errorf("%w: %w", tenancy.ErrNoTenant, ErrUntrustedPeer):                               UntrustedPeer,
		fmt.Errorf("a resolver: %w", &tenancy.Error{Err: tenancy.ErrTenantSuspended, Op: "open"}): Suspended,
	} {
		require.Equal(t, want, Of(err), err)
	}
}

func TestRetryAfter(t *testing.T) {
	for m, want := range map[Meaning]time.Duration{NotFound: 0, Internal: 0, NoTenant: 0, Suspended: time.Minute, Unavailable: 5 * time.Second} {
		require.Equal(t, want, m.RetryAfter())
	}
}
