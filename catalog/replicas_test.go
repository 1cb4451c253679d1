package catalog_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// The life of a tenant on a server with a standby: its reads are the standby's,
// and what its life does to the primary follows there.
func TestReplicas(t *testing.T) {
	ctx := t.Context()
	shared := pgtest.Shared(t)
	db, err := gorm.Open(postgres.Open(shared.DSN(shared.CreateDatabase(t))), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	pg := pgtest.Start(t)
	standby := pg.Standby(t)
	server, err := tenancypg.NewServer(tenancypg.ServerConfig{
		App: pg.DSN(""), Admin: pg.DSN("postgres"), Replicas: []string{standby.DSN("")},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	cat, err := catalog.New(db, catalog.Config{
		Servers: map[string]catalog.Server{"s1": server},
		Migrator: migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "CREATE TABLE notes (id bigserial PRIMARY KEY, text text)")
			return err
		}),
		Backup: catalog.BackupDir(t.TempDir()),
	})
	require.NoError(t, err)
	require.NoError(t, cat.Migrate(ctx))
	plugin := tenancy.New(tenancy.Config{Resolver: cat, Engine: tenancypg.Engine{}})
	require.NoError(t, db.Use(plugin))
	t.Cleanup(func() {
		if err := plugin.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	acme := db.WithContext(tenant.Ctx(ctx, "acme"))
	// back waits until reads are the standby's again: it lags behind the
	// tenant's generation, and is left alone for as long.
	back := func() {
		t.Helper()
		standby.Follow(t, pg)
		require.Eventually(t, func() bool {
			before := plugin.Stats().ReplicaReads
			require.NoError(t, acme.Find(&[]Note{}).Error)
			return plugin.Stats().ReplicaReads > before
		}, 30*time.Second, 20*time.Millisecond)
	}

	created, err := cat.Create(ctx, "acme", catalog.CreateOptions{})
	require.NoError(t, err)
	n := Note{Text: "hello"}
	require.NoError(t, acme.Create(&n).Error)
	require.NoError(t, acme.Clauses(dbresolver.Write).First(&Note{}, n.ID).Error)
	back()
	require.NoError(t, acme.First(&Note{}, n.ID).Error)
	servers := map[string]tenancy.ServerStats{}
	for _, s := range plugin.Stats().Servers {
		servers[s.Server] = s
	}
	require.Equal(t, 1, servers["s1"].Pools)
	require.Equal(t, 0, servers["s1"].Replicas)
	require.Equal(t, 1, servers[standby.Addr()].Replicas, "%v", servers)

	// A reader with a connection of its own to the standby, as a process that
	// hears no news has one.
	d, err := server.Database(created.Database)
	require.NoError(t, err)
	deaf := sql.OpenDB(d.Replicas[0].Connector)
	t.Cleanup(func() { _ = deaf.Close() })
	require.NoError(t, deaf.PingContext(ctx))

	require.NoError(t, cat.Suspend(ctx, "acme", catalog.SuspendOptions{}))
	require.ErrorIs(t, acme.Find(&[]Note{}).Error, tenancy.ErrTenantSuspended)
	require.NoError(t, cat.Unsuspend(ctx, "acme"))
	require.NoError(t, acme.First(&Note{}, n.ID).Error)
	back() // in the new generation

	_, err = cat.Remove(ctx, "acme", catalog.RemoveOptions{NoBackup: true})
	require.NoError(t, err)
	require.ErrorIs(t, acme.Find(&[]Note{}).Error, tenancy.ErrTenantNotFound)
	standby.Follow(t, pg)
	require.Error(t, deaf.PingContext(ctx), "the database is gone from the standby too")
}
