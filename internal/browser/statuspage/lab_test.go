package statuspage

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// app is an application with its status page.
type app struct {
	db     *gorm.DB
	plugin *tenancy.Plugin
	page   *tenancystatus.Page
	server *httptest.Server
	url    string // of the page
}

// newApp makes an application of tenants. Its page is at /admin/tenancy, with a
// sample every 200 ms so that tests need not wait.
func newApp(t *testing.T, main gorm.Dialector, cfg tenancy.Config, look tenancystatus.Config) *app {
	t.Helper()
	a := &app{}
	a.db, a.plugin = notes.Open(t, main, cfg)
	look.Plugin = a.plugin
	if look.Interval == 0 {
		look.Interval = 200 * time.Millisecond
	}
	if look.Name == "" {
		look.Name = "app-1"
	}
	var err error
	a.page, err = tenancystatus.New(look)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/admin/tenancy", a.page)
	a.server = httptest.NewServer(mux)
	a.url = a.server.URL + "/admin/tenancy"
	t.Cleanup(func() {
		a.server.Close()
		a.page.Close()
	})
	return a
}

// files is an application with a file for each of ids, on the servers of names in
// turn.
func files(t *testing.T, look tenancystatus.Config, limits tenancy.Limits, names []string, ids ...string) *app {
	t.Helper()
	dir := t.TempDir()
	tenants := tenancy.Static{}
	for i, id := range ids {
		path := filepath.Join(dir, id+".db")
		require.NoError(t, tenancysqlite.Create(t.Context(), path))
		tenants[id] = tenancy.Database{DSN: tenancysqlite.DSN(path), Server: names[i%len(names)]}
	}
	cfg := tenancy.Config{Engine: tenancysqlite.Engine{}, Resolver: tenants, Pools: limits}
	return newApp(t, sqlite.Open(filepath.Join(dir, "main.db")), cfg, look)
}

// ask runs one statement for each tenant of the application.
func (a *app) ask(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		require.NoError(t, a.db.WithContext(tenant.Ctx(t.Context(), id)).Exec("SELECT 1").Error)
	}
}

// servers is an application with tenants "north-1", ... on one PostgreSQL and
// "south-1", ... on another, each with a budget of two connections.
func servers(t *testing.T, look tenancystatus.Config, each int) (a *app, north, south *pgtest.Cluster) {
	t.Helper()
	north, south = pgtest.Start(t), pgtest.Start(t)
	tenants := tenancy.Static{}
	for name, pg := range map[string]*pgtest.Cluster{"north": north, "south": south} {
		for i := range each {
			tenants[fmt.Sprintf("%s-%d", name, i+1)] = tenancy.Database{DSN: pg.DSN(pg.CreateDatabase(t)), Server: name}
		}
	}
	cfg := tenancy.Config{Engine: tenancypg.Engine{}, Resolver: tenants, Pools: tenancy.Limits{
		MaxConnsPerServer: 2, AcquireTimeout: 2 * time.Second, MaxPools: 2*each - 1}}
	return newApp(t, postgres.Open(north.DSN("postgres")), cfg, look), north, south
}

// load runs statements of d each from n goroutines, for tenants name-1 to name-each
// in turn, until stop is called or the test ends. Errors are part of it.
func (a *app) load(t *testing.T, name string, each, n int, d time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range n {
		wg.Go(func() {
			for i := w; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("%s-%d", name, i%each+1)
				err := a.db.WithContext(tenant.Ctx(ctx, id)).Exec("SELECT pg_sleep(?)", d.Seconds()).Error
				if err != nil { // a server that is down refuses at once
					select {
					case <-ctx.Done():
					case <-time.After(20 * time.Millisecond):
					}
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	return stop
}
