// Package notes is an application with a database for each tenant: for the tests
// of what brings the tenant in, the web frameworks' middleware for instance.
package notes

import (
	"context"
	"database/sql"
	"path/filepath"
	"sync"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Note is the application's only model.
type Note struct {
	ID   uint
	Text string
}

// App is the application. Its db may be used from any goroutine.
type App struct {
	DB     *gorm.DB
	Plugin *tenancy.Plugin

	dir       string
	suspended sync.Map // by tenant
}

// New makes the databases of the tenants ids, each with "note of <id>" in it. There
// are two more tenants: "closed", which is suspended, and "old", which is behind.
func New(t testing.TB, ids ...string) *App {
	t.Helper()
	ctx := context.Background()
	a := &App{dir: t.TempDir()}
	tenants := tenancy.Static{}
	for _, id := range append(ids, "closed", "old") {
		require.NoError(t, tenancysqlite.Create(ctx, a.path(id)))
		schema := int64(2)
		if id == "old" {
			schema = 1
		}
		tenants[id] = tenancy.Database{DSN: tenancysqlite.DSN(a.path(id)), Server: "files", Schema: schema}
	}
	a.DB, a.Plugin = Open(t, sqlite.Open(File(t)), tenancy.Config{
		Engine: tenancysqlite.Engine{},
		Schema: tenancy.SchemaRange{Min: 2},
		Resolver: tenancy.ResolverFunc(func(ctx context.Context, id string) (tenancy.Database, error) {
			if _, ok := a.suspended.Load(id); ok {
				return tenancy.Database{}, tenancy.ErrTenantSuspended
			}
			return tenants.Resolve(ctx, id)
		}),
	})
	a.Suspend("closed")
	for _, id := range ids {
		in := a.DB.WithContext(tenant.Ctx(ctx, id))
		require.NoError(t, in.AutoMigrate(&Note{}))
		require.NoError(t, in.Create(&Note{Text: "note of " + id}).Error)
	}
	return a
}

func (a *App) path(id string) string { return filepath.Join(a.dir, id+".db") }

// Suspend has the tenant refused from its next statement on.
func (a *App) Suspend(id string) {
	a.suspended.Store(id, true)
	a.Plugin.Evict(id)
}

// First returns the text of the first note in the database of ctx's tenant.
func (a *App) First(ctx context.Context) (string, error) {
	var n Note
	err := a.DB.WithContext(ctx).First(&n).Error
	return n.Text, err
}

// Add writes a note into the database of ctx's tenant.
func (a *App) Add(ctx context.Context, text string) error {
	return a.DB.WithContext(ctx).Create(&Note{Text: text}).Error
}

// Raw returns all notes in the tenant's file, read through a connection of its
// own that the plugin knows nothing of.
func (a *App) Raw(t testing.TB, id string) []string {
	t.Helper()
	db, err := sql.Open("sqlite", a.path(id))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	rows, err := db.Query("SELECT text FROM notes ORDER BY id")
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var texts []string
	for rows.Next() {
		var text string
		require.NoError(t, rows.Scan(&text))
		texts = append(texts, text)
	}
	require.NoError(t, rows.Err())
	return texts
}
