package catalog_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// However a run is cancelled, also in the middle of a claim, the next one finds
// no lease that it has to wait for.
func TestCancelledRunKeepsNoLease(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		pr.createAll(t, "acme", "bravo", "delta")
		waits := func(cfg *catalog.Config) {
			cfg.Migrator = migrate.Func(2, func(ctx context.Context, _ *sql.DB) error {
				<-ctx.Done()
				return ctx.Err()
			})
		}
		newer := p.start(t, waits)
		main, err := newer.db.DB()
		require.NoError(t, err)
		for i := range 60 {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := newer.catalog.MigrateTenants(ctx, migrate.Options{Workers: 1, OnEvent: func(e migrate.Event) {
				if e.Kind == migrate.EventBegun {
					go func() { // later each time
						defer cancel()
						for range i % 20 {
							_ = main.Ping()
							_, _ = main.Exec("SELECT 1")
						}
					}()
				}
			}})
			cancel()
			require.ErrorIs(t, err, context.Canceled)
			var leases int
			require.NoError(t, main.QueryRow("SELECT count(*) FROM tenancy_tenants WHERE lease_until > 0").Scan(&leases))
			require.Zero(t, leases)
		}
	})
}
