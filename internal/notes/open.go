package notes

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Open returns a db that uses a plugin of cfg. Both are closed when the test ends.
func Open(t testing.TB, main gorm.Dialector, cfg tenancy.Config) (*gorm.DB, *tenancy.Plugin) {
	t.Helper()
	db, err := gorm.Open(main, &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	require.NoError(t, err)
	plugin := tenancy.New(cfg)
	require.NoError(t, db.Use(plugin))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, plugin.Close(ctx))
		pool, err := db.DB()
		require.NoError(t, err)
		require.NoError(t, pool.Close())
	})
	return db, plugin
}

// File makes an SQLite database in a directory of its own, and returns its DSN.
func File(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	require.NoError(t, tenancysqlite.Create(t.Context(), path))
	return tenancysqlite.DSN(path)
}

// Files are tenants with an SQLite file each, on a server called "files".
func Files(t testing.TB, ids ...string) tenancy.Static {
	t.Helper()
	static := tenancy.Static{}
	for _, id := range ids {
		static[id] = tenancy.Database{DSN: File(t), Server: "files"}
	}
	return static
}

// Ask runs a statement for the tenant id.
func Ask(db *gorm.DB, id string) error {
	var one int
	return db.WithContext(tenant.Ctx(context.Background(), id)).Raw("SELECT 1").Scan(&one).Error
}

// Settle waits until no call is in progress: openings end after their callers have
// gone on.
func Settle(t testing.TB, plugin *tenancy.Plugin) {
	t.Helper()
	require.Eventually(t, func() bool {
		s := plugin.Stats()
		return s.Opening+s.InUse+s.Draining == 0
	}, 10*time.Second, time.Millisecond)
}
