package catalog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// No decision is made by a wall clock: two processes' may be an hour apart.
func TestNoWallClock(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "time.Now(") || strings.Contains(line, "time.Until(") {
				require.Contains(t, line, "var started", name)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	db, err := gorm.Open(sqlite.Open(filepath.Join(t.TempDir(), "main.db")), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	sqlDB, err := db.DB()
	require.NoError(t, err)
	defer sqlDB.Close()
	server, err := tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: t.TempDir()})
	require.NoError(t, err)
	defer server.Close()
	servers := map[string]catalog.Server{"s": server}
	for want, cfg := range map[string]catalog.Config{
		"Servers is empty":  {},
		"without a name":    {Servers: map[string]catalog.Server{"": server}},
		"is nil":            {Servers: map[string]catalog.Server{"s": nil}},
		"Ready is negative": {Servers: servers, Ready: -1},
		"shorter than":      {Servers: servers, Lease: 1},
	} {
		_, err := catalog.New(db, cfg)
		require.ErrorContains(t, err, want)
	}
	_, err = catalog.New(nil, catalog.Config{Servers: servers})
	require.ErrorContains(t, err, "db is nil")

	c, err := catalog.New(db, catalog.Config{Servers: servers})
	require.NoError(t, err)
	_, err = c.Create(t.Context(), "acme", catalog.CreateOptions{})
	require.ErrorIs(t, err, catalog.ErrNotMigrated)
	require.ErrorContains(t, err, "Catalog.Migrate")
	_, err = c.Resolve(t.Context(), "acme")
	require.ErrorIs(t, err, catalog.ErrNotMigrated)
	for range 2 {
		require.NoError(t, c.Migrate(t.Context()))
	}
	_, err = sqlDB.Exec("UPDATE tenancy_catalog SET version = 99")
	require.NoError(t, err)
	require.ErrorContains(t, c.Migrate(t.Context()), "newer")
	_, err = c.Create(t.Context(), "acme", catalog.CreateOptions{})
	require.ErrorContains(t, err, "newer")
	for _, dialect := range []string{"postgres", "sqlite"} {
		text, err := catalog.Schema(dialect)
		require.NoError(t, err)
		require.Contains(t, text, "tenancy_tenants")
	}
	_, err = catalog.Schema("mysql")
	require.Error(t, err)
}

func TestBadIDs(t *testing.T) {
	p := newPlace(t, "sqlite")
	pr := p.start(t)
	ctx := t.Context()
	for _, id := range []string{"", "../x", "a b", "a'b", strings.Repeat("x", 64), "a\x00b", "-a"} {
		_, err := pr.catalog.Create(ctx, id, catalog.CreateOptions{})
		require.ErrorIs(t, err, tenancy.ErrInvalidTenant, "%q", id)
		_, err = pr.catalog.Resolve(ctx, id)
		require.ErrorIs(t, err, tenancy.ErrInvalidTenant, "%q", id)
		require.ErrorIs(t, pr.catalog.Rename(ctx, "a", id), tenancy.ErrInvalidTenant)
		_, err = pr.catalog.Get(ctx, id)
		require.ErrorIs(t, err, tenancy.ErrInvalidTenant)
	}
	_, err := pr.catalog.Create(ctx, "a", catalog.CreateOptions{Server: "nope"})
	require.ErrorIs(t, err, catalog.ErrUnknownServer)
	require.Empty(t, p.there(t))
}

func TestListAndUpdate(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		ctx := t.Context()
		for id, plan := range map[string]string{"a": "pro", "b": "free", "c": "pro"} {
			_, err := pr.catalog.Create(ctx, id, catalog.CreateOptions{Labels: map[string]string{"plan": plan, "a.b/c": `"x"`}, MaxConns: 2})
			require.NoError(t, err)
		}
		ids := func(f catalog.Filter) (all []string) {
			for id, err := range pr.catalog.IDs(ctx, f) {
				require.NoError(t, err)
				all = append(all, id)
			}
			slices.Sort(all)
			return all
		}
		require.Equal(t, []string{"a", "b", "c"}, ids(catalog.Filter{}))
		require.Equal(t, []string{"a", "c"}, ids(catalog.Filter{Labels: map[string]string{"plan": "pro", "a.b/c": `"x"`}}))
		require.Empty(t, ids(catalog.Filter{Server: "s9"}))
		require.Empty(t, ids(catalog.Filter{Unfinished: true}))
		require.NoError(t, pr.catalog.Suspend(ctx, "a", catalog.SuspendOptions{}))
		require.Equal(t, []string{"b", "c"}, ids(catalog.Filter{}))
		require.Equal(t, []string{"a"}, ids(catalog.Filter{States: []catalog.State{catalog.Suspended}}))

		five := 5
		row, err := pr.catalog.Update(ctx, "c", catalog.Change{Labels: map[string]string{"plan": "free", "a.b/c": ""}, MaxConns: &five})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"plan": "free"}, row.Labels)
		d, err := pr.catalog.Resolve(ctx, "c")
		require.NoError(t, err)
		require.Equal(t, 5, d.MaxConns)
		require.Equal(t, "s1", d.Server)
		require.Equal(t, []string{"b", "c"}, ids(catalog.Filter{Labels: map[string]string{"plan": "free"}}))

		// Over all tenants, with the plugin's own sweep.
		var seen []string
		require.NoError(t, tenancy.Each(ctx, pr.db, pr.catalog.IDs(ctx, catalog.Filter{}), tenancy.EachOptions{},
			func(_ context.Context, id string, db *gorm.DB) error {
				seen = append(seen, id)
				return db.Create(&Note{Text: id}).Error
			}))
		slices.Sort(seen)
		require.Equal(t, []string{"b", "c"}, seen)
	})
}

func TestOnFirstUse(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Seeds = true
		pr := p.start(t)
		closed := errors.New("sign-ups are closed")
		resolver := pr.catalog.OnFirstUse(func(_ context.Context, id string) (catalog.CreateOptions, error) {
			if id == "stranger" {
				return catalog.CreateOptions{}, closed
			}
			return catalog.CreateOptions{Labels: map[string]string{"by": "use"}}, nil
		})
		var dialector gorm.Dialector = sqlite.Open(p.Main)
		var engine tenancy.Engine = tenancysqlite.Engine{}
		if p.Engine == "postgres" {
			dialector, engine = postgresParts(p)
		}
		db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
		require.NoError(t, err)
		main, err := db.DB()
		require.NoError(t, err)
		defer main.Close()
		plugin := tenancy.New(tenancy.Config{Resolver: resolver, Engine: engine})
		require.NoError(t, db.Use(plugin))
		defer func() { require.NoError(t, plugin.Close(context.Background())) }()
		use := &process{place: p, db: db}
		require.Equal(t, []string{"seed of new"}, use.notes(t, "new"))
		require.ErrorIs(t, use.in("stranger").Find(&[]Note{}).Error, closed)
		require.NoError(t, pr.catalog.Suspend(t.Context(), "new", catalog.SuspendOptions{}))
		require.Eventually(t, func() bool {
			return errors.Is(use.in("new").Find(&[]Note{}).Error, tenancy.ErrTenantSuspended)
		}, 5e9, 1e6)
		require.Len(t, p.there(t), 1)
	})
}

// Orphans are reported, and dropped only when told; what is a tenant's never.
func TestAudit(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		ctx := t.Context()
		lost := pr.create(t, "lost")
		kept := pr.create(t, "kept")
		main, err := pr.db.DB()
		require.NoError(t, err)
		pr.plugin.Evict("lost")
		_, err = main.Exec("DELETE FROM tenancy_tenants WHERE id = 'lost'")
		require.NoError(t, err)
		audit, err := pr.catalog.Audit(ctx)
		require.NoError(t, err)
		audit.Orphans = slices.DeleteFunc(audit.Orphans, func(o catalog.Orphan) bool { return !o.Ours })
		require.Len(t, audit.Orphans, 1)
		orphan := audit.Orphans[0]
		require.Equal(t, lost.Database, orphan.Name)
		require.Equal(t, lost.UID, orphan.UID)
		alive := orphan
		alive.Name = kept.Database
		require.ErrorIs(t, pr.catalog.DropOrphan(ctx, alive, true), catalog.ErrForeign)
		require.NoError(t, pr.catalog.DropOrphan(ctx, orphan, false))
		require.NoError(t, pr.catalog.DropOrphan(ctx, orphan, false), "twice")
		pr.inOrder(t)
		require.Empty(t, pr.notes(t, "kept"))

		// And the other way: a row without its database.
		server := pr.servers["s1"]
		session, err := server.Session(ctx, kept.Database, false)
		require.NoError(t, err)
		require.NoError(t, session.Drop(ctx))
		require.NoError(t, session.Close())
		audit, err = pr.catalog.Audit(ctx)
		require.NoError(t, err)
		require.Len(t, audit.Missing, 1)
		require.Equal(t, "kept", audit.Missing[0].ID)
		_, err = pr.catalog.Remove(ctx, "kept", catalog.RemoveOptions{})
		require.NoError(t, err)
		pr.inOrder(t)
	})
}

func TestPurge(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		ctx := t.Context()
		pr.create(t, "acme")
		_, err := pr.catalog.Remove(ctx, "acme", catalog.RemoveOptions{})
		require.NoError(t, err)
		n, err := pr.catalog.Purge(ctx)
		require.NoError(t, err)
		require.Zero(t, n)
		main, err := pr.db.DB()
		require.NoError(t, err)
		old := "now() - interval '91 days'"
		if p.Engine == "sqlite" {
			old = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-91 days')"
		}
		_, err = main.Exec("UPDATE tenancy_tenants SET deleted_at = " + old)
		require.NoError(t, err)
		n, err = pr.catalog.Purge(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

func TestPlacement(t *testing.T) {
	loads := []catalog.Load{{Server: "a", Tenants: 5}, {Server: "b", Tenants: 3}, {Server: "c", Tenants: 3}}
	name, err := catalog.LeastTenants(t.Context(), loads)
	require.NoError(t, err)
	require.Equal(t, "b", name)
	place := catalog.Weights(map[string]int{"a": 3, "b": 1})
	got := map[string]int{}
	loads = []catalog.Load{{Server: "a"}, {Server: "b"}, {Server: "c"}}
	for range 40 {
		name, err := place(t.Context(), loads)
		require.NoError(t, err)
		got[name]++
		for i := range loads {
			if loads[i].Server == name {
				loads[i].Tenants++
			}
		}
	}
	require.Equal(t, map[string]int{"a": 30, "b": 10}, got)
	_, err = catalog.Weights(nil)(t.Context(), loads)
	require.Error(t, err)

	p := newPlace(t, "sqlite")
	p.addServer(t, "s2")
	pr := p.start(t)
	pr.createAll(t, "a", "b", "c", "d")
	all, err := pr.catalog.Loads(t.Context())
	require.NoError(t, err)
	require.Equal(t, []catalog.Load{{Server: "s1", Tenants: 2}, {Server: "s2", Tenants: 2}}, all)
	strange := p.start(t, func(cfg *catalog.Config) {
		cfg.Placement = func(context.Context, []catalog.Load) (string, error) { return "nowhere", nil }
	})
	_, err = strange.catalog.Create(t.Context(), "x", catalog.CreateOptions{})
	require.ErrorIs(t, err, catalog.ErrUnknownServer)
}

// The table of transitions and the constraint of the database know the same
// states, and every task moves along the table.
func TestTransitions(t *testing.T) {
	text, err := catalog.Schema("postgres")
	require.NoError(t, err)
	for state := range catalog.Transitions() {
		if state != "" {
			require.Contains(t, text, "'"+string(state)+"'")
		}
	}
}
