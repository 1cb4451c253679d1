package tenancy_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"
	"gorm.io/gorm/utils/tests"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// exercise runs what an existing application does, the same SQL for both
// tenants in turn, through what session makes of the env's db.
func exercise(t *testing.T, e *env, session func(*gorm.DB) *gorm.DB) {
	t.Helper()
	for round := range 3 {
		for _, id := range []string{idA, idB} {
			db := session(e.db).WithContext(e.ctx(id))
			var orders []Order
			require.NoError(t, db.Preload("Customer.Plan").Order("id").Find(&orders).Error)
			require.Len(t, orders, 2)
			require.Equal(t, "order 1 of "+id, orders[0].Title)
			require.Equal(t, "customer of "+id, orders[0].Customer.Name)
			require.Equal(t, "plan of main", orders[0].Customer.Plan.Name)

			tag := Tag{Name: fmt.Sprint(round, " of ", id)}
			require.NoError(t, db.Create(&tag).Error)
			require.NoError(t, db.Model(&tag).Update("name", tag.Name+"!").Error)
			require.NoError(t, db.Transaction(func(tx *gorm.DB) error {
				var again Tag
				require.NoError(t, tx.First(&again, tag.ID).Error)
				require.Equal(t, tag.Name, again.Name)
				require.NoError(t, tx.Create(&Note{Text: "gone", OwnerID: 9}).Error)
				return tx.Where("owner_id = ?", 9).Delete(&Note{}).Error
			}))
			require.ErrorIs(t, db.Transaction(func(tx *gorm.DB) error {
				require.NoError(t, tx.Create(&Tag{Name: "rolled back"}).Error)
				return errBoom
			}), errBoom)
			var name string
			require.NoError(t, db.Raw("SELECT name FROM customers WHERE id = ?", 1).Scan(&name).Error)
			require.Equal(t, "customer of "+id, name)
			require.NoError(t, db.Model(&Customer{}).Select("name").Row().Scan(&name))
			require.Equal(t, "customer of "+id, name)
			require.NoError(t, db.Exec("UPDATE cards SET number = ?", "card of "+id).Error)

			require.ErrorIs(t, session(e.db).Find(&orders).Error, tenancy.ErrNoTenant)
		}
		db := session(e.db)
		var plan Plan
		require.NoError(t, db.First(&plan).Error)
		require.Equal(t, "plan of main", plan.Name)
		plan = Plan{Name: "new"}
		require.NoError(t, db.Create(&plan).Error)
		require.NoError(t, db.Delete(&plan).Error)
	}
	for _, id := range []string{idA, idB} {
		d := e.dump(id)
		require.Equal(t, []string{"tag of " + id, "0 of " + id + "!", "1 of " + id + "!", "2 of " + id + "!"}, d["tags"])
		require.Equal(t, []string{"note of " + id}, d["notes"])
		require.Equal(t, []string{"card of " + id}, d["cards"])
		require.Equal(t, []string{"plan of " + id}, d["plans"])
	}
	d := e.dump(mainName)
	require.Equal(t, []string{"tag of main"}, d["tags"])
	require.Equal(t, []string{"card of main"}, d["cards"])
	require.Equal(t, []string{"plan of main"}, d["plans"])
}

func TestDropInConfig(t *testing.T) {
	same := func(db *gorm.DB) *gorm.DB { return db }
	with := func(s gorm.Session) func(*gorm.DB) *gorm.DB {
		return func(db *gorm.DB) *gorm.DB { return db.Session(&s) }
	}
	for name, tc := range map[string]struct {
		config  func(*gorm.Config)
		session func(*gorm.DB) *gorm.DB
	}{
		"plain":                        {func(*gorm.Config) {}, same},
		"PrepareStmt":                  {func(c *gorm.Config) { c.PrepareStmt = true }, same},
		"session PrepareStmt":          {func(*gorm.Config) {}, with(gorm.Session{PrepareStmt: true})},
		"both PrepareStmt":             {func(c *gorm.Config) { c.PrepareStmt = true }, with(gorm.Session{PrepareStmt: true})},
		"SkipDefaultTransaction":       {func(c *gorm.Config) { c.SkipDefaultTransaction = true }, same},
		"skip and prepare":             {func(c *gorm.Config) { c.SkipDefaultTransaction, c.PrepareStmt = true, true }, same},
		"session skips":                {func(*gorm.Config) {}, with(gorm.Session{SkipDefaultTransaction: true, PrepareStmt: true})},
		"timeouts":                     {func(c *gorm.Config) { c.DefaultContextTimeout, c.DefaultTransactionTimeout = time.Minute, time.Minute }, same},
		"TranslateError":               {func(c *gorm.Config) { c.TranslateError = true }, same},
		"no nested transaction, NewDB": {func(c *gorm.Config) { c.DisableNestedTransaction = true }, with(gorm.Session{NewDB: true})},
		"QueryFields, no FK":           {func(c *gorm.Config) { c.QueryFields, c.DisableForeignKeyConstraintWhenMigrating = true, true }, same},
	} {
		t.Run(name, func(t *testing.T) {
			try := func(t *testing.T, e *env) {
				require.NoError(t, tenancy.Verify(e.db))
				exercise(t, e, tc.session)
				for _, call := range e.calls.list() {
					require.NotContains(t, call, ": prepare", "a tenant's statement must not be prepared by GORM")
				}
			}
			if strings.Contains(strings.ToLower(name), "prepare") {
				engines(t, func(t *testing.T, open func(...envOption) *env) { try(t, open(withGorm(tc.config))) })
				return
			}
			try(t, openSQLite(t, withGorm(tc.config)))
		})
	}
}

// Sessions derived before db.Use work like those after it, or are refused;
// none of them leads a tenant's statement to the main database.
func TestDropInDerivedBeforeUse(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		var plain, prepared *gorm.DB
		e := open(withBefore(func(db *gorm.DB) {
			plain = db.Session(&gorm.Session{})
			prepared = db.Session(&gorm.Session{PrepareStmt: true})
		}))
		before := e.dump(mainName)
		for _, early := range []*gorm.DB{plain, prepared} {
			var orders []Order
			require.NoError(t, early.WithContext(e.ctx(idA)).Find(&orders).Error)
			require.Equal(t, "order 1 of acme", orders[0].Title)
			require.NoError(t, early.WithContext(e.ctx(idB)).Create(&Tag{Name: "x"}).Error)
			require.ErrorIs(t, early.Find(&orders).Error, tenancy.ErrNoTenant)

			err := early.WithContext(e.ctx(idA)).Transaction(func(tx *gorm.DB) error {
				return tx.Create(&Tag{Name: "y"}).Error
			})
			want := []string{"tag of acme", "y"}
			if err != nil {
				require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
				require.ErrorContains(t, err, "derive sessions after db.Use")
				want = want[:1]
			}
			require.Equal(t, want, e.dump(idA)["tags"])
			require.NoError(t, e.in(idA).Where("name = ?", "y").Delete(&Tag{}).Error)
		}
		require.Equal(t, before, e.dump(mainName))
		require.Equal(t, []string{"tag of bravo", "x", "x"}, e.dump(idB)["tags"])
	})
}

func TestDropInLogger(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	e := openSQLite(t, withGorm(func(c *gorm.Config) {
		c.Logger = logger.New(log.New(lockedWriter{&mu, &out}, "", 0), logger.Config{LogLevel: logger.Info})
	}))
	var orders []Order
	require.NoError(t, e.in(idA).Find(&orders).Error)
	mu.Lock()
	defer mu.Unlock()
	require.Contains(t, out.String(), "SELECT * FROM `orders`")
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

func TestDropInTablePrefix(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withGorm(func(c *gorm.Config) {
			c.NamingStrategy = schema.NamingStrategy{TablePrefix: "app_", SingularTable: true}
		}))
		require.NoError(t, e.main().AutoMigrate(&Plan{}))
		require.NoError(t, e.db.Create(&Plan{Name: "prefixed"}).Error)
		for _, id := range []string{idA, idB} {
			require.NoError(t, e.in(id).AutoMigrate(tenantModels...))
			require.NoError(t, e.in(id).Create(&Customer{Name: "prefixed of " + id}).Error)
		}
		for _, id := range []string{idA, idB} {
			var c Customer
			require.NoError(t, e.in(id).First(&c).Error)
			require.Equal(t, "prefixed of "+id, c.Name)
			require.Equal(t, []string{"prefixed of " + id}, e.strings(id, "SELECT name FROM app_customer"))
		}
		require.Equal(t, []string{"prefixed"}, e.strings(mainName, "SELECT name FROM app_plan"))
		require.ErrorIs(t, e.in(idA).AutoMigrate(&Plan{}), tenancy.ErrCrossDatabase)
	})
}

func TestDropInTranslateError(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withGorm(func(c *gorm.Config) { c.TranslateError = true }))
		for name, create := range map[string]func(v any) error{
			"router": func(v any) error { return e.in(idA).Create(v).Error },
			"no default": func(v any) error {
				return e.in(idA).Session(&gorm.Session{SkipDefaultTransaction: true}).Create(v).Error
			},
			"bound":        func(v any) error { return tenancy.For(e.db, idA).Create(v).Error },
			"transaction":  func(v any) error { return e.in(idA).Transaction(func(tx *gorm.DB) error { return tx.Create(v).Error }) },
			"main":         func(v any) error { return e.main().Create(v).Error },
			"prepare stmt": func(v any) error { return e.in(idA).Session(&gorm.Session{PrepareStmt: true}).Create(v).Error },
		} {
			require.ErrorIs(t, create(&Tag{ID: 1, Name: "again"}), gorm.ErrDuplicatedKey, name)
		}
		require.ErrorIs(t, e.in(idA).First(&Tag{}, 99).Error, gorm.ErrRecordNotFound)
		require.ErrorIs(t, e.db.Create(&Tag{ID: 1}).Error, tenancy.ErrNoTenant)
	})
}

func TestDropInContextTimeout(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withGorm(func(c *gorm.Config) { c.DefaultContextTimeout = time.Nanosecond }))
		require.ErrorIs(t, e.in(idA).Find(&[]Order{}).Error, context.DeadlineExceeded)
		require.ErrorIs(t, e.db.Find(&[]Plan{}).Error, context.DeadlineExceeded)
	})
}

// databases returns which databases got a statement while do ran.
func (e *env) databases(do func()) []string {
	e.calls.reset()
	do()
	var out []string
	for _, call := range e.calls.list() {
		name, what, _ := strings.Cut(call, ": ")
		if what != "connect" && what != "begin" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

const replicaName = "replica"

// useResolver is an application's dbresolver on the main database, with a
// replica and one named resolver.
func useResolver(t *testing.T, e *env, db *gorm.DB) {
	t.Helper()
	require.NoError(t, db.Use(newResolver(e)))
}

func newResolver(e *env) *dbresolver.DBResolver {
	pool := sql.OpenDB(e.static[replicaName].Connector)
	e.t.Cleanup(func() { _ = pool.Close() })
	dialector := e.dialect(pool)
	return dbresolver.Register(dbresolver.Config{Replicas: []gorm.Dialector{dialector}}).
		Register(dbresolver.Config{Replicas: []gorm.Dialector{dialector}}, "named")
}

func TestDBResolver(t *testing.T) {
	for name, early := range map[string]bool{"resolver first": true, "tenancy first": false} {
		for i := range 4 {
			prepare, replicas := i&1 != 0, i&2>>1
			t.Run(fmt.Sprintf("%s, PrepareStmt %v, %d replicas", name, prepare, replicas), func(t *testing.T) {
				engines(t, func(t *testing.T, open func(...envOption) *env) {
					use := func(e *env, db *gorm.DB) { useResolver(t, e, db) }
					place := withLate(use)
					if early {
						place = withEarly(use)
					}
					testDBResolver(t, open(place, withTenants(idA, idB, replicaName), withReplicas(replicas),
						withGorm(func(c *gorm.Config) { c.PrepareStmt = prepare })))
				})
			})
		}
	}
}

func testDBResolver(t *testing.T, e *env) {
	require.NoError(t, tenancy.Verify(e.db))
	before := e.dumps()
	at := func(want string, do func() error) {
		t.Helper()
		require.Equal(t, []string{want}, e.databases(func() { require.NoError(t, do()) }))
	}
	under := map[string]*gorm.DB{"no tenant": e.db, "tenant": e.in(idA), "bound": tenancy.For(e.db, idA), "main": e.main()}
	for name, db := range under {
		// Main models: as dbresolver does.
		var plan Plan
		at(replicaName, func() error { return db.First(&plan).Error })
		require.Equal(t, "plan of replica", plan.Name, name)
		at(mainName, func() error { return db.Clauses(dbresolver.Write).First(&plan).Error })
		at(replicaName, func() error { return db.Clauses(dbresolver.Read).First(&plan).Error })
		at(replicaName, func() error { return db.Clauses(dbresolver.Use("named")).First(&plan).Error })
		at(mainName, func() error { return db.Clauses(clause.Locking{Strength: "UPDATE"}).First(&plan).Error })
		plan = Plan{Name: "written"}
		at(mainName, func() error { return db.Create(&plan).Error })
		at(mainName, func() error { return db.Model(&plan).Update("name", "rewritten").Error })
		at(mainName, func() error { return db.Delete(&plan).Error })
		at(mainName, func() error { return db.Clauses(dbresolver.Write).Create(&plan).Error })
		at(mainName, func() error { return db.Delete(&plan).Error })
	}
	at(mainName, func() error {
		return e.main().Transaction(func(tx *gorm.DB) error {
			var c Customer
			require.NoError(t, tx.First(&c).Error)
			require.Equal(t, "customer of main", c.Name)
			return tx.First(&Plan{}).Error
		})
	})
	at(replicaName, func() error { return e.main().Find(&[]Order{}).Error })

	for _, id := range []string{idA, idB} {
		for name, db := range map[string]*gorm.DB{"ctx": e.in(id), "bound": tenancy.For(e.db, id)} {
			for _, c := range []clause.Expression{nil, dbresolver.Write, dbresolver.Read, dbresolver.Use("named")} {
				with := func() *gorm.DB {
					if c == nil {
						return db
					}
					return db.Clauses(c)
				}
				read := id // where reads go
				if len(e.static[id].Replicas) > 0 && c != clause.Expression(dbresolver.Write) {
					read = replicaOf(id, 1)
				}
				var order Order
				at(read, func() error { return with().First(&order).Error })
				require.Equal(t, "order 1 of "+read, order.Title, name)
				tag := Tag{Name: "x"}
				at(id, func() error { return with().Create(&tag).Error })
				at(id, func() error { return with().Model(&tag).Update("name", "y").Error })
				at(id, func() error { return with().Delete(&tag).Error })
				var n int64
				at(read, func() error { return with().Model(&Tag{}).Count(&n).Error })
				require.EqualValues(t, 1, n)
				at(read, func() error { return with().Raw("SELECT count(*) FROM orders").Scan(&n).Error })
				at(id, func() error { return with().Exec("UPDATE orders SET deleted = NULL").Error })
				short := id // dbresolver's guess leaves the shortest to the primary
				if c == clause.Expression(dbresolver.Read) {
					short = read
				}
				at(short, func() error { return with().Raw("SELECT 1").Row().Scan(&n) })

				// Its clauses make GORM begin on the main database: works on
				// the tenant, or is refused.
				for _, do := range []func(*gorm.DB) error{
					func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "in tx"}).Error },
					func(tx *gorm.DB) error { return tx.Exec("DELETE FROM tags WHERE name = 'in tx'").Error },
				} {
					got := e.databases(func() {
						if err := with().Transaction(do); err != nil {
							require.NotNil(t, c, "%v", err)
							require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
							require.ErrorContains(t, err, "without dbresolver's clauses")
						}
					})
					if len(got) > 0 {
						require.Equal(t, []string{id}, got)
					}
				}
				require.NoError(t, db.Exec("DELETE FROM tags WHERE name = 'in tx'").Error)
			}
			at(id, func() error {
				return db.Transaction(func(tx *gorm.DB) error { return tx.Find(&[]Order{}).Error })
			})
			var c Customer
			require.NoError(t, db.Preload("Plan").First(&c).Error)
			require.Equal(t, "plan of replica", c.Plan.Name)
			if len(e.static[id].Replicas) == 0 {
				require.Equal(t, "customer of "+id, c.Name)
			} else {
				require.Equal(t, "customer of "+replicaOf(id, 1), c.Name)
				require.Equal(t, before[replicaOf(id, 1)], e.dump(replicaOf(id, 1)))
			}
		}
		require.Equal(t, []string{"tag of " + id}, e.dump(id)["tags"])
	}
	require.Equal(t, []string{"plan of main"}, e.dump(mainName)["plans"])
	require.Equal(t, []string{"plan of replica"}, e.dump(replicaName)["plans"])
	require.ErrorIs(t, e.db.Find(&[]Order{}).Error, tenancy.ErrNoTenant)
	require.ErrorIs(t, e.db.Clauses(dbresolver.Write).Find(&[]Order{}).Error, tenancy.ErrNoTenant)
}

// Plugins in gorm.Config are initialized in the order of a map, and dbresolver
// opens its replicas with a copy of that Config.
func TestPluginsInConfig(t *testing.T) {
	e := openSQLite(t, withTenants(idA, idB, replicaName))
	for range 16 { // both orders, but for 1 in 32768
		plugin := tenancy.New(tenancy.Config{Resolver: e.static, MainModels: []any{&Plan{}}})
		resolver := newResolver(e)
		db, err := gorm.Open(e.dialect(e.raw[mainName]), &gorm.Config{Logger: logger.Discard, Plugins: map[string]gorm.Plugin{
			plugin.Name(): plugin, resolver.Name(): resolver,
		}})
		require.NoError(t, err)
		require.NoError(t, tenancy.Verify(db))
		from, ok := tenancy.From(db)
		require.True(t, ok)
		require.Same(t, plugin, from)
		require.ErrorIs(t, db.Find(&[]Order{}).Error, tenancy.ErrNoTenant)
		var o Order
		require.NoError(t, db.WithContext(e.ctx(idB)).First(&o).Error)
		require.Equal(t, "order 1 of bravo", o.Title)
		var plan Plan
		require.NoError(t, db.First(&plan).Error)
		require.Equal(t, "plan of replica", plan.Name)
		plan = Plan{Name: "new"}
		require.NoError(t, db.Create(&plan).Error)
		require.Equal(t, []string{"plan of main", "new"}, e.dump(mainName)["plans"])
		require.NoError(t, db.WithContext(tenant.Main(t.Context())).Transaction(func(tx *gorm.DB) error {
			return tx.Delete(&plan).Error
		}))
		require.Equal(t, []string{"plan of main"}, e.dump(mainName)["plans"])
		require.NoError(t, plugin.Close(t.Context()))
	}
}

func TestUseAgain(t *testing.T) {
	e := openSQLite(t)
	works := func() {
		t.Helper()
		require.NoError(t, tenancy.Verify(e.db))
		var o Order
		require.NoError(t, e.in(idA).First(&o).Error)
		require.Equal(t, "order 1 of acme", o.Title)
		require.ErrorIs(t, e.db.Find(&[]Order{}).Error, tenancy.ErrNoTenant)
	}
	require.ErrorIs(t, e.db.Use(e.plugin), gorm.ErrRegistered)
	require.ErrorIs(t, e.db.Use(tenancy.New(tenancy.Config{Resolver: e.static})), gorm.ErrRegistered)
	works()

	other, err := gorm.Open(e.dialect(e.raw[mainName]), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	require.ErrorContains(t, other.Use(e.plugin), "tenancy.New for each")
	works()

	_, err = gorm.Open(e.dialect(e.raw[idB]), e.db.Config)
	require.ErrorContains(t, err, "a Config of its own")
	works()

	tx := e.main().Begin()
	require.NoError(t, tx.Error)
	require.ErrorIs(t, tx.Use(tenancy.New(tenancy.Config{Resolver: e.static})), gorm.ErrRegistered)
	require.NoError(t, tx.Rollback().Error)
	tx = other.Begin()
	require.NoError(t, tx.Error)
	defer tx.Rollback()
	require.ErrorContains(t, tx.Use(tenancy.New(tenancy.Config{Resolver: e.static})), "transaction")
}

func TestBadConfig(t *testing.T) {
	ok := tenancy.Static{}
	same := &unreachable{"same"}
	for mention, cfg := range map[string]tenancy.Config{
		"Config.Resolver is not set":                    {},
		"Config.Resolver: invalid tenant id":            {Resolver: tenancy.Static{"a/b": {Connector: same}}},
		"Config.Resolver: tenant a: its Database has n": {Resolver: tenancy.Static{"a": {}}},
		"Config.Resolver: tenant a: its Database has a": {Resolver: tenancy.Static{"a": {DSN: "x", Connector: same}}},
		"Database.MaxConns is negative":                 {Resolver: tenancy.Static{"a": {Connector: same, MaxConns: -1}}},
		"Config.Resolver: tenant a has a DSN but Engin": {Resolver: tenancy.Static{"a": {DSN: "x"}}},
		"Config.Resolver: tenants a and b have the sam": {Resolver: tenancy.Static{"a": {Connector: same}, "b": {Connector: same}}},
		"Config.Engine is for postgres":                 {Resolver: ok, Engine: tenancypg.Engine{}},
		"Config.Pools.MaxPools is negative":             {Resolver: ok, Pools: tenancy.Limits{MaxPools: -1}},
		"Config.Pools.MaxConnsPerTenant is negative":    {Resolver: ok, Pools: tenancy.Limits{MaxConnsPerTenant: -1}},
		"Config.Pools.IdleTimeout is negative":          {Resolver: ok, Pools: tenancy.Limits{IdleTimeout: -1}},
		"Config.Pools.ConnMaxIdleTime is negative":      {Resolver: ok, Pools: tenancy.Limits{ConnMaxIdleTime: -1}},
		"Config.Pools.ConnMaxLifetime is negative":      {Resolver: ok, Pools: tenancy.Limits{ConnMaxLifetime: -1}},
		"Config.Recheck is negative":                    {Resolver: ok, Recheck: -1},
		"Config.MainModels[0] is an empty table name":   {Resolver: ok, MainModels: []any{""}},
		"Config.MainModels[1] (int) is not a model":     {Resolver: ok, MainModels: []any{&Plan{}, 5}},
		"Config.MainModels[0] (<nil>) is not a model":   {Resolver: ok, MainModels: []any{nil}},
	} {
		t.Run(mention, func(t *testing.T) {
			db, err := gorm.Open(dummySQLite{}, &gorm.Config{ConnPool: noPool{}, Logger: logger.Discard})
			require.NoError(t, err)
			plugin := tenancy.New(cfg)
			err = db.Use(plugin)
			require.ErrorContains(t, err, mention)
			require.True(t, strings.HasPrefix(err.Error(), "tenancy"), "%v", err)
			_, used := tenancy.From(db)
			require.False(t, used)
			require.Error(t, tenancy.Verify(db))
			require.NoError(t, plugin.Close(t.Context()))
		})
	}
}

// dummySQLite is a dialector without a database.
type dummySQLite struct{ tests.DummyDialector }

func (dummySQLite) Name() string { return "sqlite" }
