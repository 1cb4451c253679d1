package tenancy_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) {
	// Exceptions: the prometheus plugin's timer (prometheus.go, Initialize) and
	// the cache of prepared statements that GORM makes for
	// PrepareStmt has a goroutine that nothing ends (gorm
	// internal/lru/lru.go, NewLRU).
	goleak.VerifyTestMain(pgtest.Main(m),
		goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"),
		goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func2"),
		goleak.IgnoreAnyFunction("gorm.io/plugin/prometheus.(*Prometheus).Initialize.func1.1"))
}

// Models of the imaginary app that the tests run. Every key starts at 1 in
// every database, so that a wrong route hits a row.

type Plan struct {
	ID   uint
	Name string
}

type Customer struct {
	ID     uint
	Name   string
	PlanID *uint
	Plan   *Plan `gorm:"constraint:-"`
	Orders []Order
	Card   Card
	Tags   []Tag  `gorm:"many2many:customer_tags"`
	Notes  []Note `gorm:"polymorphic:Owner"`
}

type Card struct {
	ID         uint
	Number     string
	CustomerID uint
}

type Order struct {
	ID         uint
	Title      string
	CustomerID *uint
	Customer   *Customer
	Deleted    gorm.DeletedAt
	tenancy.Stamp
}

type Tag struct {
	ID   uint
	Name string
}

type Note struct {
	ID        uint
	Text      string
	OwnerID   uint
	OwnerType string
}

var tenantModels = []any{&Customer{}, &Card{}, &Order{}, &Tag{}, &Note{}}

// ids of the tenants that every env has.
const (
	idA = "acme"
	idB = "bravo"
)

// env is a main database and two tenants, each with the same tables and with
// rows that carry the name of their database.
type env struct {
	t       testing.TB
	name    string // of the engine
	db      *gorm.DB
	plugin  *tenancy.Plugin
	calls   *recorder // every driver call on every database, since reset
	raw     map[string]*sql.DB
	static  tenancy.Static
	gadgets string // the shape of the Migrator's tables, as made by refresh
	initial state  // of all databases, as made by withGadgets
	// dialect makes the engine's dialector.
	dialect func(*sql.DB) gorm.Dialector
}

type envOption func(*envConfig)

type envConfig struct {
	gorm   gorm.Config
	cfg    tenancy.Config
	before func(*gorm.DB) // after gorm.Open, before db.Use(tenancy)
	after  func(*gorm.DB)
	early  func(*env, *gorm.DB) // as before and after
	late   func(*env, *gorm.DB)
	ids    []string
	// how many replicas each tenant has
	replicas int
}

func withGorm(f func(*gorm.Config)) envOption      { return func(c *envConfig) { f(&c.gorm) } }
func withConfig(f func(*tenancy.Config)) envOption { return func(c *envConfig) { f(&c.cfg) } }
func withBefore(f func(*gorm.DB)) envOption        { return func(c *envConfig) { c.before = f } }
func withAfter(f func(*gorm.DB)) envOption         { return func(c *envConfig) { c.after = f } }
func withEarly(f func(*env, *gorm.DB)) envOption   { return func(c *envConfig) { c.early = f } }
func withLate(f func(*env, *gorm.DB)) envOption    { return func(c *envConfig) { c.late = f } }
func withTenants(ids ...string) envOption          { return func(c *envConfig) { c.ids = ids } }
func withReplicas(n int) envOption                 { return func(c *envConfig) { c.replicas = n } }

// replicaOf names the tenant's replica i, from 1. It is a database of its own,
// with rows that carry its own name: so it is seen who was read, and a write to
// a replica too.
func replicaOf(id string, i int) string { return fmt.Sprintf("%s-r%d", id, i) }

const mainName = "main"

// engines runs test on SQLite and on PostgreSQL.
func engines(t *testing.T, test func(t *testing.T, open func(...envOption) *env)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, func(opts ...envOption) *env { return openSQLite(t, opts...) })
	})
	t.Run("postgres", func(t *testing.T) {
		pgtest.Shared(t) // skips before anything else
		test(t, func(opts ...envOption) *env { return openPostgres(t, opts...) })
	})
}

func openSQLite(t testing.TB, opts ...envOption) *env {
	dir := t.TempDir()
	engine := tenancysqlite.Engine{}
	return newEnv(t, "sqlite", engine, func(name string) string {
		path := filepath.Join(dir, name+".db")
		require.NoError(t, tenancysqlite.Create(t.Context(), path))
		return tenancysqlite.DSN(path) + "?_pragma=synchronous(off)"
	}, func(pool *sql.DB) gorm.Dialector { return &sqlite.Dialector{Conn: pool} }, opts...)
}

func openPostgres(t testing.TB, opts ...envOption) *env {
	cluster := pgtest.Shared(t)
	return newEnv(t, "postgres", tenancypg.Engine{}, func(string) string {
		return cluster.DSN(cluster.CreateDatabase(t))
	}, func(pool *sql.DB) gorm.Dialector { return postgres.New(postgres.Config{Conn: pool}) }, opts...)
}

func newEnv(t testing.TB, name string, engine tenancy.Engine, create func(name string) string,
	dialect func(*sql.DB) gorm.Dialector, opts ...envOption) *env {
	t.Helper()
	c := envConfig{ids: []string{idA, idB}}
	c.gorm.Logger = logger.Discard
	c.cfg.MainModels = []any{&Plan{}}
	for _, o := range opts {
		o(&c)
	}
	e := &env{t: t, name: name, calls: &recorder{}, raw: map[string]*sql.DB{}, static: tenancy.Static{}, dialect: dialect}

	connector := func(dsn string) driver.Connector {
		inner, err := engine.Connector(dsn)
		require.NoError(t, err)
		return inner
	}
	open := func(name string) string {
		dsn := create(name)
		e.raw[name] = sql.OpenDB(connector(dsn))
		t.Cleanup(func() { _ = e.raw[name].Close() })
		seed(t, dialect(e.raw[name]), name)
		return dsn
	}
	mainDSN := open(mainName)
	for _, id := range c.ids {
		dsn := open(id)
		d := tenancy.Database{Connector: &recording{id, connector(dsn), e.calls}}
		for i := range c.replicas {
			name := replicaOf(id, i+1)
			d.Replicas = append(d.Replicas, tenancy.Database{
				Connector: &recording{name, connector(open(name)), e.calls}, Server: name})
		}
		e.static[id] = d
	}
	if c.cfg.Resolver == nil {
		c.cfg.Resolver = e.static
	}
	c.cfg.Engine = engine

	mainPool := sql.OpenDB(&recording{mainName, connector(mainDSN), e.calls})
	t.Cleanup(func() { _ = mainPool.Close() })
	db, err := gorm.Open(dialect(mainPool), &c.gorm)
	require.NoError(t, err)
	if c.before != nil {
		c.before(db)
	}
	if c.early != nil {
		c.early(e, db)
	}
	e.plugin = tenancy.New(c.cfg)
	require.NoError(t, db.Use(e.plugin))
	if c.after != nil {
		c.after(db)
	}
	if c.late != nil {
		c.late(e, db)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20e9)
		defer cancel()
		if err := e.plugin.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	e.db = db
	e.calls.reset()
	return e
}

// seed makes the tables of every database alike, the main one too: a route
// that goes wrong finds what it looks for, and is seen by the rows' names.
func seed(t testing.TB, dialector gorm.Dialector, name string) {
	t.Helper()
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	require.NoError(t, db.AutoMigrate(append([]any{&Plan{}}, tenantModels...)...))
	plantRows(t, db, name)
}

func plantRows(t testing.TB, db *gorm.DB, name string) {
	t.Helper()
	plan := Plan{Name: "plan of " + name}
	require.NoError(t, db.Create(&plan).Error)
	require.NoError(t, db.Create(&Customer{
		Name:   "customer of " + name,
		PlanID: &plan.ID,
		Orders: []Order{{Title: "order 1 of " + name}, {Title: "order 2 of " + name}},
		Card:   Card{Number: "card of " + name},
		Tags:   []Tag{{Name: "tag of " + name}},
		Notes:  []Note{{Text: "note of " + name}},
	}).Error)
}

func (e *env) ctx(id string) context.Context { return tenant.Ctx(context.Background(), id) }

// in returns db for the tenant.
func (e *env) in(id string) *gorm.DB { return e.db.WithContext(e.ctx(id)) }

// main returns db for the main database.
func (e *env) main() *gorm.DB { return e.db.WithContext(tenant.Main(context.Background())) }

// strings reads one column raw, through the test's own connection.
func (e *env) strings(database, query string) []string {
	e.t.Helper()
	rows, err := e.raw[database].Query(query)
	require.NoError(e.t, err)
	defer func() { _ = rows.Close() }()
	out := []string{}
	for rows.Next() {
		var s sql.NullString
		require.NoError(e.t, rows.Scan(&s))
		out = append(out, s.String)
	}
	require.NoError(e.t, rows.Err())
	return out
}

// dump is the whole content of a database, read raw.
func (e *env) dump(database string) map[string][]string {
	e.t.Helper()
	return map[string][]string{
		"plans":         e.strings(database, "SELECT name FROM plans ORDER BY id"),
		"customers":     e.strings(database, "SELECT name FROM customers ORDER BY id"),
		"orders":        e.strings(database, "SELECT title FROM orders ORDER BY id"),
		"deleted":       e.strings(database, "SELECT title FROM orders WHERE deleted IS NOT NULL ORDER BY id"),
		"cards":         e.strings(database, "SELECT number FROM cards ORDER BY id"),
		"tags":          e.strings(database, "SELECT name FROM tags ORDER BY id"),
		"notes":         e.strings(database, "SELECT text FROM notes ORDER BY id"),
		"customer_tags": e.strings(database, "SELECT CAST(tag_id AS TEXT) FROM customer_tags ORDER BY 1"),
		"owners":        e.strings(database, "SELECT CAST(customer_id AS TEXT) FROM orders ORDER BY id"),
		"customer_plan": e.strings(database, "SELECT CAST(plan_id AS TEXT) FROM customers ORDER BY id"),
	}
}

// dumps is dump of every database but those named.
func (e *env) dumps(except ...string) map[string]map[string][]string {
	e.t.Helper()
	out := map[string]map[string][]string{}
	for name := range e.raw {
		out[name] = e.dump(name)
	}
	for _, name := range except {
		delete(out, name)
	}
	return out
}

// recorder notes every call that reaches a driver.
type recorder struct {
	mu  sync.Mutex
	all []string
}

func (r *recorder) add(database, call string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, database+": "+call)
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = nil
}

func (r *recorder) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.all...)
}

// recording is a connector that notes what its connections are asked.
type recording struct {
	name  string
	inner driver.Connector
	calls *recorder
}

func (c *recording) Driver() driver.Driver { return c.inner.Driver() }

func (c *recording) Connect(ctx context.Context) (driver.Conn, error) {
	c.calls.add(c.name, "connect")
	conn, err := c.inner.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &recordingConn{conn, c}, nil
}

type recordingConn struct {
	driver.Conn
	c *recording
}

func (c *recordingConn) PrepareContext(ctx context.Context, q string) (driver.Stmt, error) {
	c.c.calls.add(c.c.name, "prepare "+q)
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, q)
}

func (c *recordingConn) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	c.c.calls.add(c.c.name, "exec "+q)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, q, args)
}

func (c *recordingConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	c.c.calls.add(c.c.name, "query "+q)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, q, args)
}

func (c *recordingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.c.calls.add(c.c.name, "begin")
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c *recordingConn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

func (c *recordingConn) ResetSession(ctx context.Context) error {
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *recordingConn) IsValid() bool {
	if v, ok := c.Conn.(driver.Validator); ok {
		return v.IsValid()
	}
	return true
}

var errBoom = errors.New("boom")
