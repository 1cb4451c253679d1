package migrate_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// lostBooks are those of a run whose main database is away from the moment that
// it has begun.
type lostBooks struct{}

var errAway = errors.New("the main database is away")

func (b lostBooks) Begin(context.Context, migrate.Want) (migrate.Ledger, *migrate.Report, error) {
	return b, nil, nil
}
func (lostBooks) Canaries() []string                              { return nil }
func (lostBooks) Servers(context.Context, bool) ([]string, error) { return nil, errAway }
func (lostBooks) Claim(context.Context, string, bool) (migrate.Claim, error) {
	return migrate.Claim{}, errAway
}
func (lostBooks) Skip(context.Context, string, string) error { return errAway }
func (lostBooks) Halt(context.Context, string) error         { return errAway }
func (lostBooks) Counts(context.Context) (migrate.Counts, error) {
	return migrate.Counts{}, errAway
}
func (lostBooks) Results(context.Context, []string) ([]migrate.Result, error) { return nil, errAway }
func (lostBooks) End(context.Context) (*migrate.Report, error)                { return nil, errAway }

// TestRunWithoutBooks: where nothing can be read of the tenants, the report must
// not say that all are done.
func TestRunWithoutBooks(t *testing.T) {
	t.Parallel()
	report, err := migrate.Run(t.Context(), lostBooks{}, counting(1), migrate.Options{})
	require.ErrorIs(t, err, errAway)
	require.ErrorIs(t, err, migrate.ErrBook)
	require.Equal(t, migrate.StatusStopped, report.Status)
	require.NotZero(t, report.ExitCode())
}

// TestListForgetsMendedError: a tenant that failed once and then went well has no
// error in the report.
func TestListForgetsMendedError(t *testing.T) {
	t.Parallel()
	onEngines(t, 1, func(t *testing.T, f *fleet) {
		n := 0
		report, err := migrate.Run(t.Context(), f.List, migrate.Func(1, func(context.Context, *sql.DB) error {
			if n++; n == 1 {
				return context.DeadlineExceeded
			}
			return nil
		}), migrate.Options{Backoff: time.Millisecond})
		require.NoError(t, err)
		require.Len(t, report.Tenants, 1)
		require.Equal(t, migrate.StatusDone, report.Tenants[0].Status)
		require.Equal(t, 2, report.Tenants[0].Attempts)
		require.Empty(t, report.Tenants[0].Error)
	})
}
