package catalog_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// TestFleetCorrectOfOldVerification: a verification is older than a migration.
// What it has found is not written over what is true now.
func TestFleetCorrectOfOldVerification(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	pr := p.start(t, withSteps(steps{target: 2}))
	pr.create(t, "a")
	pr.exec(t, "UPDATE tenancy_tenants SET version = 1, fingerprint = ''")
	v, err := pr.catalog.Verify(t.Context(), catalog.Filter{}, migrate.VerifyOptions{})
	require.NoError(t, err)
	require.Len(t, v.Drifts, 1)
	require.Equal(t, migrate.DriftBook, v.Drifts[0].Kind)
	_, err = p.start(t, withSteps(steps{target: 3})).catalog.MigrateTenants(t.Context(), migrate.Options{})
	require.NoError(t, err)
	corrected, err := pr.catalog.Correct(t.Context(), v)
	require.ErrorIs(t, err, catalog.ErrBusy, "it is said, so that somebody verifies again")
	require.Empty(t, corrected)
	row, err := pr.catalog.Get(t.Context(), "a")
	require.NoError(t, err)
	require.EqualValues(t, 3, row.Version)
}

// TestFleetCorrectPastDeadLease: a lease that a dead process has left does not
// speak against a correction; one that holds does.
func TestFleetCorrectPastDeadLease(t *testing.T) {
	t.Parallel()
	pr := newPlace(t, "sqlite").start(t, withSteps(steps{target: 2}))
	pr.create(t, "a")
	pr.exec(t, "UPDATE tenancy_tenants SET version = 1, fingerprint = '', lease_owner = 'alive', lease_until = 4000000000000")
	v, err := pr.catalog.Verify(t.Context(), catalog.Filter{}, migrate.VerifyOptions{})
	require.NoError(t, err)
	_, err = pr.catalog.Correct(t.Context(), v)
	require.ErrorIs(t, err, catalog.ErrBusy)
	pr.forgetLeases(t)
	corrected, err := pr.catalog.Correct(t.Context(), v)
	require.NoError(t, err)
	require.Len(t, corrected, 1)
	require.EqualValues(t, 2, corrected[0].Version)
}

// writing is a Migrator whose Current writes, which it must not.
type writing struct{ steps }

func (w writing) Current(ctx context.Context, db *sql.DB) (int64, error) {
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS written (n int)"); err != nil {
		return 0, err
	}
	return w.steps.Current(ctx, db)
}

// TestFleetVerifyCantWrite: neither in a tenant that is served, nor in one that
// is suspended, whose database is opened in another way.
func TestFleetVerifyCantWrite(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		old := p.start(t, withSteps(steps{target: 1}))
		old.create(t, "a")
		old.create(t, "b")
		require.NoError(t, old.catalog.Suspend(t.Context(), "b", catalog.SuspendOptions{}))
		pr := p.start(t, func(cfg *catalog.Config) { cfg.Migrator = writing{steps{target: 1}} })
		v, err := pr.catalog.Verify(t.Context(), catalog.Filter{}, migrate.VerifyOptions{})
		require.NoError(t, err)
		require.Len(t, v.Drifts, 2)
		for _, d := range v.Drifts {
			require.Equal(t, migrate.DriftUnreachable, d.Kind, "%+v", d)
		}
	})
}

// TestFleetTimeoutsOfSuspended: the timeouts of a run hold in a suspended tenant
// too, whose database is opened in another way.
func TestFleetTimeoutsOfSuspended(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	old := p.start(t, withSteps(steps{target: 1}))
	old.create(t, "a")
	require.NoError(t, old.catalog.Suspend(t.Context(), "a", catalog.SuspendOptions{}))
	var statement, lock string
	pr := p.start(t, withSteps(steps{target: 2, before: func(ctx context.Context, tx *sql.Tx, _ int64) error {
		return tx.QueryRowContext(ctx, "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')").Scan(&statement, &lock)
	}}))
	_, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{StatementTimeout: 7 * time.Second, LockTimeout: 900 * time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, "7s", statement)
	require.Equal(t, "900ms", lock)
}
