package tenancystatus_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenancystatus"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// app is an application whose tenants are files: "t0", "t1", ... on the servers of
// names in turn.
type app struct {
	db     *gorm.DB
	plugin *tenancy.Plugin
	ids    []string
}

func newApp(t *testing.T, tenants int, names ...string) *app {
	t.Helper()
	dir := t.TempDir()
	static := tenancy.Static{}
	a := &app{}
	for i := range tenants {
		id := fmt.Sprint("t", i)
		path := filepath.Join(dir, id+".db")
		require.NoError(t, tenancysqlite.Create(t.Context(), path))
		static[id] = tenancy.Database{DSN: tenancysqlite.DSN(path), Server: names[i%len(names)]}
		a.ids = append(a.ids, id)
	}
	db, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	a.db, a.plugin = db, tenancy.New(tenancy.Config{Engine: tenancysqlite.Engine{}, Resolver: static})
	require.NoError(t, db.Use(a.plugin))
	t.Cleanup(func() {
		require.NoError(t, a.plugin.Close(context.Background()))
		main, err := db.DB()
		require.NoError(t, err)
		require.NoError(t, main.Close())
	})
	return a
}

// ask runs a statement of each tenant.
func (a *app) ask(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		require.NoError(t, a.in(id).Exec("SELECT 1").Error)
	}
}

func (a *app) in(id string) *gorm.DB {
	return a.db.WithContext(tenant.Ctx(context.Background(), id))
}

// newPage is a page that is closed when the test ends.
func newPage(t *testing.T, cfg tenancystatus.Config) *tenancystatus.Page {
	t.Helper()
	p, err := tenancystatus.New(cfg)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// get asks h for target; header alternates between names and values.
func get(h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
