package tenancy_test

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
)

// versions is a Resolver that knows the versions of its tenants' schemas, and
// counts how often it is asked.
type versions struct {
	where func(ctx context.Context, id string) (tenancy.Database, error)

	mu     sync.Mutex
	of     map[string]int64
	asked  map[string]int
	forgot map[string]int
	events []tenancy.Event
}

func newVersions(of map[string]int64) *versions {
	return &versions{of: of, asked: map[string]int{}, forgot: map[string]int{}}
}

func (v *versions) Resolve(ctx context.Context, id string) (tenancy.Database, error) {
	v.mu.Lock()
	v.asked[id]++
	n := v.of[id]
	v.mu.Unlock()
	d, err := v.where(ctx, id)
	d.Schema = n
	return d, err
}

func (v *versions) Forget(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forgot[id]++
}

func (v *versions) set(id string, n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.of[id] = n
}

func (v *versions) count(of *map[string]int, id string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return (*of)[id]
}

// Observe keeps the events.
func (v *versions) Observe(e tenancy.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = append(v.events, e)
}

func (v *versions) seen(kind tenancy.EventKind, id string) (found []tenancy.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.events {
		if e.Kind == kind && e.Tenant == id {
			found = append(found, e)
		}
	}
	return found
}

// openVersions is a db of SQLite files whose tenants' schemas have versions.
func openVersions(t *testing.T, of map[string]int64, schema func(*env) tenancy.SchemaRange) (*env, *versions) {
	v := newVersions(of)
	var e *env
	e = openSQLite(t, withConfig(func(c *tenancy.Config) {
		c.Resolver, c.Observer = v, v
		r := schema(nil)
		c.Schema = r
		if r.Migrate != nil { // needs what is made only now
			c.Schema.Migrate = func(ctx context.Context, id string) error { return schema(e).Migrate(ctx, id) }
		}
	}))
	v.where = e.static.Resolve
	return e, v
}

func TestBadSchemaRange(t *testing.T) {
	migrate := func(context.Context, string) error { return nil }
	for want, r := range map[string]tenancy.SchemaRange{
		"Schema.Min is negative":            {Min: -1},
		"Schema.Max is negative":            {Max: -1},
		"Schema.Max is 3, less than Min":    {Min: 4, Max: 3},
		"set BehindRefuse or BehindIgnore":  {Min: 1, Behind: 7},
		"Schema.Migrate is set but Min is":  {Max: 3, Migrate: migrate},
		"Schema.MigrateTimeout is negative": {Min: 1, Migrate: migrate, MigrateTimeout: -1},
	} {
		db, err := gorm.Open(nil, &gorm.Config{ConnPool: noPool{}, Logger: logger.Discard})
		require.NoError(t, err)
		require.ErrorContains(t, db.Use(tenancy.New(tenancy.Config{Resolver: tenancy.Static{}, Schema: r})), want)
	}
}

// No statement reaches a tenant that is behind, nor one of whom nobody knows.
func TestSchemaBehindIsRefused(t *testing.T) {
	e, v := openVersions(t, map[string]int64{idA: 4, idB: 5}, func(*env) tenancy.SchemaRange {
		return tenancy.SchemaRange{Min: 5, Max: 5}
	})
	ctx := e.ctx(idA)
	before := e.dump(idA)
	var orders []Order
	run := func() map[string]error {
		return map[string]error{
			"find":        e.in(idA).Find(&orders).Error,
			"create":      e.in(idA).Create(&Tag{Name: "x"}).Error,
			"exec":        e.in(idA).Exec("DELETE FROM tags").Error,
			"raw":         e.in(idA).Raw("SELECT 1").Scan(new(int)).Error,
			"begin":       e.in(idA).Begin().Error,
			"transaction": e.in(idA).Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{}).Error }),
			"migrator":    e.in(idA).AutoMigrate(&Tag{}),
			"generics":    gorm.G[Tag](e.db).Create(ctx, &Tag{Name: "x"}),
			"For":         tenancy.For(e.db, idA).Create(&Tag{}).Error,
			"With": tenancy.With(ctx, e.db, idA, func(_ context.Context, db *gorm.DB) error {
				return db.Create(&Tag{}).Error
			}),
			"Conn": tenancy.Conn(ctx, e.db, func(*sql.Conn) error { return nil }),
			"Each": tenancy.Each(context.Background(), e.db, ids(idA), tenancy.EachOptions{},
				func(context.Context, string, *gorm.DB) error { return nil }),
		}
	}
	for name, err := range run() {
		require.ErrorIs(t, err, tenancy.ErrTenantBehind, name)
		require.ErrorContains(t, err, "tenant acme", name)
		require.ErrorContains(t, err, "version 4, the application needs 5 at least; run the migrations", name)
	}
	v.set(idA, 0)
	e.plugin.Evict(idA)
	for name, err := range run() {
		require.ErrorIs(t, err, tenancy.ErrTenantBehind, name)
		require.ErrorContains(t, err, "is not known", name)
		require.ErrorContains(t, err, "let the Resolver set Database.Schema", name)
	}
	require.Empty(t, e.calls.list(), "not even a connect")
	require.Equal(t, before, e.dump(idA))
	require.NotEmpty(t, v.seen(tenancy.EventFailed, idA))

	require.NoError(t, e.in(idB).First(&Order{}).Error)
	db, err := e.plugin.OpenDB(context.Background(), idA)
	require.NoError(t, err, "for tools that repair")
	require.NoError(t, db.Ping())
	require.NoError(t, db.Close())
}

// Without a bound nothing is asked.
func TestSchemaRangeZeroValue(t *testing.T) {
	e, v := openVersions(t, map[string]int64{idB: 1}, func(*env) tenancy.SchemaRange {
		return tenancy.SchemaRange{Current: func(context.Context, *sql.DB) (int64, error) { return 0, errBoom }}
	})
	require.NoError(t, e.in(idA).First(&Order{}).Error)
	require.NoError(t, e.in(idB).First(&Order{}).Error)
	require.Empty(t, v.seen(tenancy.EventFailed, idA))
}

func TestSchemaBehindIgnoredAndAhead(t *testing.T) {
	e, v := openVersions(t, map[string]int64{idA: 4, idB: 9}, func(*env) tenancy.SchemaRange {
		return tenancy.SchemaRange{Min: 5, Max: 8, Behind: tenancy.BehindIgnore}
	})
	for range 3 {
		require.NoError(t, e.in(idA).First(&Order{}).Error)
		require.NoError(t, e.in(idB).First(&Order{}).Error)
	}
	behind, ahead := v.seen(tenancy.EventBehind, idA), v.seen(tenancy.EventAhead, idB)
	require.Len(t, behind, 1, "once for each opening")
	require.ErrorIs(t, behind[0].Err, tenancy.ErrTenantBehind)
	require.Len(t, ahead, 1)
	require.ErrorContains(t, ahead[0].Err, "version 9, the application knows 8 at most")
	require.NotErrorIs(t, ahead[0].Err, tenancy.ErrTenantBehind)
	require.Empty(t, v.seen(tenancy.EventAhead, idA))
	require.Empty(t, v.seen(tenancy.EventBehind, idB))

	require.NoError(t, e.plugin.Drain(context.Background(), idB))
	require.NoError(t, e.in(idB).First(&Order{}).Error)
	require.Len(t, v.seen(tenancy.EventAhead, idB), 2)
}

func userVersion(ctx context.Context, db *sql.DB) (n int64, err error) {
	err = db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&n)
	return n, err
}

// Where the Resolver says nothing, the database is asked, and nothing else.
func TestSchemaCurrent(t *testing.T) {
	var fail atomic.Pointer[func() error]
	var asked atomic.Int32
	e, v := openVersions(t, map[string]int64{}, func(*env) tenancy.SchemaRange {
		return tenancy.SchemaRange{Min: 5, Current: func(ctx context.Context, db *sql.DB) (int64, error) {
			asked.Add(1)
			if f := fail.Load(); f != nil {
				return 0, (*f)()
			}
			return userVersion(ctx, db)
		}}
	})
	_, err := e.raw[idA].Exec("PRAGMA user_version = 5")
	require.NoError(t, err)

	require.ErrorIs(t, e.in(idB).First(&Order{}).Error, tenancy.ErrTenantBehind)
	for _, call := range e.calls.list() {
		require.Contains(t, []string{"bravo: connect", "bravo: query PRAGMA user_version"}, call)
	}
	require.ErrorContains(t, e.in(idB).First(&Order{}).Error, "version 0")
	require.NoError(t, e.plugin.Drain(context.Background(), idB))
	require.Zero(t, e.plugin.Stats().Conns, "the connection that read it is gone")

	for range 2 {
		require.NoError(t, e.in(idA).First(&Order{}).Error)
	}
	require.EqualValues(t, 2, asked.Load(), "once for each opening")
	require.Equal(t, 1, e.plugin.Stats().Conns, "the one that read the version serves on")

	for _, f := range []func() error{func() error { return errBoom }, func() error { panic("ouch") }} {
		fail.Store(&f)
		e.plugin.Evict(idB)
		err := e.in(idB).First(&Order{}).Error
		require.ErrorIs(t, err, tenancy.ErrUnavailable)
		require.NotErrorIs(t, err, tenancy.ErrTenantBehind, "that is not known")
	}
	v.set(idB, 5)
	e.plugin.Evict(idB)
	require.NoError(t, e.in(idB).First(&Order{}).Error, "the Resolver's word is enough")
}
