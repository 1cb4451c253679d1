package tenancy_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// replica is a read replica of the main database for dbresolver.
func replica(t testing.TB) (*dbresolver.DBResolver, *sql.DB) {
	path := filepath.Join(t.TempDir(), "replica.db")
	require.NoError(t, tenancysqlite.Create(t.Context(), path))
	connector, err := tenancysqlite.Engine{}.Connector(tenancysqlite.DSN(path))
	require.NoError(t, err)
	pool := sql.OpenDB(connector)
	t.Cleanup(func() { _ = pool.Close() })
	seed(t, &sqlite.Dialector{Conn: pool}, "replica")
	return dbresolver.Register(dbresolver.Config{
		Replicas: []gorm.Dialector{&sqlite.Dialector{Conn: pool}}}), pool
}

func requireRouted(t *testing.T, e *env, db *gorm.DB) {
	t.Helper()
	require.NoError(t, tenancy.Verify(db))
	in := db.WithContext(e.ctx(idA))
	e.unchanged(func() {
		require.Equal(t, ordersOf(idA), titles(t, in))
		var title string
		require.NoError(t, in.Raw("SELECT title FROM orders WHERE id = 1").Scan(&title).Error)
		require.Equal(t, "order 1 of acme", title)
		require.NoError(t, in.Model(&Order{}).Where("id = 1").Select("title").Row().Scan(&title))
		require.Equal(t, "order 1 of acme", title)
		require.NoError(t, in.Create(&Tag{Name: "x"}).Error)
		require.NoError(t, in.Model(&Tag{}).Where("name = 'x'").Update("name", "y").Error)
		require.NoError(t, in.Exec("INSERT INTO tags (name) VALUES ('z')").Error)
		require.NoError(t, in.Clauses(dbresolver.Read).Exec("UPDATE tags SET name = 'zz' WHERE name = 'z'").Error)
		require.NoError(t, in.Where("name = 'y'").Delete(&Tag{}).Error)
		require.NoError(t, in.Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "tx"}).Error }))
	}, idA)
	require.Equal(t, []string{"tag of acme", "zz", "tx"}, e.dump(idA)["tags"])
	_, err := e.raw[idA].Exec("DELETE FROM tags WHERE id > 1")
	require.NoError(t, err)
	e.refused(tenancy.ErrNoTenant, func() error { return db.Exec("DELETE FROM tags").Error })
	e.refused(tenancy.ErrNoTenant, func() error { return db.Find(&[]Order{}).Error })
}

func requireReplicaRead(t *testing.T, e *env) {
	t.Helper()
	var plan Plan
	require.NoError(t, e.in(idA).First(&plan).Error)
	require.Equal(t, "plan of replica", plan.Name)
}

func TestRedTeam04DBResolverUsedAfter(t *testing.T) {
	resolver, pool := replica(t)
	e := openSQLite(t, withAfter(func(db *gorm.DB) { require.NoError(t, db.Use(resolver)) }))
	requireRouted(t, e, e.db)
	requireReplicaRead(t, e)
	requireReplicaUntouched(t, pool)
}

func requireReplicaUntouched(t *testing.T, pool *sql.DB) {
	t.Helper()
	var plans, tags int
	require.NoError(t, pool.QueryRow("SELECT (SELECT count(*) FROM plans), (SELECT count(*) FROM tags)").Scan(&plans, &tags))
	require.Equal(t, []int{1, 1}, []int{plans, tags})
}

func TestRedTeam05DBResolverUsedFirst(t *testing.T) {
	resolver, pool := replica(t)
	e := openSQLite(t, withBefore(func(db *gorm.DB) { require.NoError(t, db.Use(resolver)) }))
	requireRouted(t, e, e.db)
	requireReplicaRead(t, e)
	requireReplicaUntouched(t, pool)
}

// dbresolver opens its replicas with a copy of the Config, which initializes
// the plugins again.
func TestRedTeam06SecondInitialize(t *testing.T) {
	resolver, pool := replica(t)
	e := openSQLite(t, withAfter(func(db *gorm.DB) { require.NoError(t, db.Use(resolver)) }))
	e.unchanged(func() { require.NoError(t, e.in(idA).Create(&Plan{Name: "new"}).Error) }, mainName)
	require.Equal(t, []string{"plan of main", "new"}, e.dump(mainName)["plans"])
	requireReplicaUntouched(t, pool)
	other, err := gorm.Open(&sqlite.Dialector{Conn: pool}, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	require.ErrorContains(t, other.Use(e.plugin), "tenancy.New for each")
}

// Config.Plugins is a map: the order of Initialize is random.
func TestRedTeam38PluginsInRandomOrder(t *testing.T) {
	e := openSQLite(t)
	pool, err := e.db.DB()
	require.NoError(t, err)
	for range 8 {
		resolver, _ := replica(t)
		plugin := tenancy.New(tenancy.Config{Resolver: e.static, MainModels: []any{&Plan{}}})
		db, err := gorm.Open(&sqlite.Dialector{Conn: pool}, &gorm.Config{
			Logger:  logger.Discard,
			Plugins: map[string]gorm.Plugin{plugin.Name(): plugin, resolver.Name(): resolver},
		})
		require.NoError(t, err)
		requireRouted(t, e, db)
		require.NoError(t, plugin.Close(context.Background()))
	}
}

// gorm.Open with a Config that is in use rewrites that db's pool and callbacks.
func TestRedTeam48ConfigUsedTwice(t *testing.T) {
	e := openSQLite(t)
	_, err := gorm.Open(&sqlite.Dialector{Conn: e.raw[idB]}, e.db.Config)
	require.ErrorContains(t, err, "a Config of its own")
	requireRouted(t, e, e.db)
}
