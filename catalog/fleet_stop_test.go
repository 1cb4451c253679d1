package catalog_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

func TestFleetStop(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t, withSteps(steps{target: 1}))
		for i := range 6 {
			pr.create(t, fmt.Sprint("t", i))
		}
		stop := make(chan struct{})
		var once sync.Once
		pr = p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			once.Do(func() { close(stop) })
			return nil
		}}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{Stop: stop, PerServer: 1})
		require.ErrorIs(t, err, migrate.ErrStopped)
		require.Equal(t, migrate.StatusStopped, report.Status)
		require.Equal(t, 2, report.ExitCode())
		require.NotZero(t, report.Done, "who had his turn ended it")
		require.Equal(t, 6, report.Done+report.Left)

		// The ctx ends what runs too.
		ctx, cancel := context.WithCancel(t.Context())
		pr = p.start(t, withSteps(steps{target: 2, before: func(ctx context.Context, _ *sql.Tx, _ int64) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}}))
		report, err = pr.catalog.MigrateTenants(ctx, migrate.Options{PerServer: 1})
		require.ErrorIs(t, err, migrate.ErrStopped)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, report.Done)
		require.Zero(t, report.Failed)

		pr = p.start(t, withSteps(steps{target: 2}))
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		for _, res := range report.Tenants {
			require.Equal(t, 1, res.Attempts, "one that was cut short does not count")
		}
		pr.allAt(t, 2)
	})
}

func TestFleetHalt(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t, withSteps(steps{target: 1}))
		for i := range 5 {
			pr.create(t, fmt.Sprint("t", i))
		}
		n, err := pr.catalog.HaltMigrations(t.Context(), "")
		require.NoError(t, err)
		require.Zero(t, n, "nothing goes on")
		other := p.start(t)
		pr = p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			_, err := other.catalog.HaltMigrations(context.Background(), "support calls")
			return err
		}}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{PerServer: 1})
		if p.Engine == "sqlite" && err != nil {
			require.NotContains(t, err.Error(), "locked")
		}
		require.ErrorIs(t, err, migrate.ErrHalted)
		require.Equal(t, "support calls", report.Reason)
		require.Equal(t, 1, report.Done)
		require.Equal(t, 4, report.Left)
		_, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.ErrorIs(t, err, migrate.ErrHalted)
		report, err = pr.catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true, PerServer: 8})
		require.ErrorIs(t, err, migrate.ErrHalted, "it is halted by each of its tenants")
		require.Less(t, report.Left, 4)
		report, err = p.start(t, withSteps(steps{target: 2})).catalog.MigrateTenants(t.Context(), migrate.Options{Retry: true})
		require.NoError(t, err)
		require.Equal(t, migrate.StatusDone, report.Status)
		pr.allAt(t, 2)
	})
}

// TestFleetNewTenants: a program of yesterday goes on creating tenants.
func TestFleetNewTenants(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, p place) {
		slow := make(chan struct{})
		seeding := make(chan struct{}, 1)
		old := p.start(t, withSteps(steps{target: 1}))
		seeds := p.start(t, withSteps(steps{target: 1}), func(cfg *catalog.Config) {
			cfg.Seed = func(context.Context, *gorm.DB, catalog.Tenant) error {
				seeding <- struct{}{}
				<-slow
				return nil
			}
		})
		old.create(t, "first")
		var begun sync.Once
		created := make(chan error, 1)
		pr := p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) error {
			begun.Do(func() {
				old.create(t, "during")
				go func() {
					_, err := seeds.catalog.Create(context.Background(), "late", catalog.CreateOptions{})
					created <- err
				}()
				<-seeding
				time.AfterFunc(300*time.Millisecond, func() { close(slow) }) // the run has nothing else to do by then
			})
			return nil
		}}))
		report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{})
		require.NoError(t, err)
		require.NoError(t, <-created)
		require.Equal(t, 3, report.Done, "%+v", report)
		pr.allAt(t, 2)
	})
}
