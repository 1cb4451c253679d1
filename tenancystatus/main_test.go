package tenancystatus_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/notes"
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
	static := tenancy.Static{}
	a := &app{}
	for i := range tenants {
		id := fmt.Sprint("t", i)
		static[id] = tenancy.Database{DSN: notes.File(t), Server: names[i%len(names)]}
		a.ids = append(a.ids, id)
	}
	a.db, a.plugin = notes.Open(t, sqlite.Open(notes.File(t)), tenancy.Config{Engine: tenancysqlite.Engine{}, Resolver: static})
	return a
}

// ask runs a statement of each tenant, and waits until none is in use.
func (a *app) ask(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		require.NoError(t, a.in(id).Exec("SELECT 1").Error)
	}
	notes.Settle(t, a.plugin)
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
