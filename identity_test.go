package tenancy_test

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// moving is a resolver whose answers a test changes.
type moving struct {
	mu    sync.Mutex
	all   map[string]tenancy.Database
	asked int
}

func (m *moving) Resolve(_ context.Context, id string) (tenancy.Database, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	d, ok := m.all[id]
	if !ok {
		return d, tenancy.ErrTenantNotFound
	}
	return d, nil
}

func (m *moving) set(id string, d tenancy.Database) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[id] = d
}

func (m *moving) calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// connectors of a tenant's database: the engine's own, which knows how to read
// the table, and one through database/sql/driver's interfaces.
var connectorKinds = []string{"engine", "driver"}

// withMoving resolves idA and idB by m, whose Databases are of the kind.
func withMoving(m *moving, kind string, recheck time.Duration) []envOption {
	return []envOption{
		withConfig(func(c *tenancy.Config) { c.Resolver, c.Recheck = m, recheck }),
		withLate(func(e *env, _ *gorm.DB) {
			m.all = map[string]tenancy.Database{}
			for id, d := range e.static {
				if kind == "engine" {
					d.Connector = d.Connector.(*recording).inner
				}
				m.all[id] = d
			}
		}),
	}
}

// identify writes the database's own word of whose it is, raw.
func (e *env) identify(id string, i tenancy.Identity) {
	e.t.Helper()
	for _, q := range []string{
		"CREATE TABLE IF NOT EXISTS " + tenancy.MetaTable + " (uid text NOT NULL, generation bigint NOT NULL, catalog text)",
		"DELETE FROM " + tenancy.MetaTable,
	} {
		_, err := e.raw[id].Exec(q)
		require.NoError(e.t, err)
	}
	_, err := e.raw[id].Exec("INSERT INTO "+tenancy.MetaTable+" (uid, generation, catalog) VALUES ($1, $2, 'c')", i.UID, i.Generation)
	require.NoError(e.t, err)
}

// goneConns waits until no connection is left: one that was refused is closed,
// not kept.
func (e *env) goneConns() {
	e.t.Helper()
	require.Eventually(e.t, func() bool { return e.plugin.Stats().Conns == 0 }, 10*time.Second, time.Millisecond)
	for _, s := range e.plugin.Stats().Servers {
		require.Zero(e.t, s.Conns, "%+v", s)
	}
}

var right = tenancy.Identity{UID: "u-acme", Generation: 3}

// What a statement of each kind gets, and what it leaves.
func (e *env) statements(id string) map[string]error {
	begun := false
	errs := map[string]error{
		"find":   e.in(id).Find(&[]Order{}).Error,
		"create": e.in(id).Create(&Order{Title: "evil"}).Error,
		"update": e.in(id).Model(&Order{}).Where("id = 1").Update("title", "evil").Error,
		"exec":   e.in(id).Exec("INSERT INTO orders (title) VALUES ('evil')").Error,
		"raw":    e.in(id).Raw("SELECT title FROM orders").Scan(&[]string{}).Error,
		"transaction": e.in(id).Transaction(func(tx *gorm.DB) error {
			begun = true
			return tx.Create(&Order{Title: "evil"}).Error
		}),
		"conn": tenancy.Conn(e.ctx(id), e.db, func(c *sql.Conn) error {
			begun = true
			_, err := c.ExecContext(context.Background(), "INSERT INTO orders (title) VALUES ('evil')")
			return err
		}),
	}
	if begun {
		errs["begun"] = nil
	}
	return errs
}

func TestIdentityRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(e *env)
		says    string
		generic bool // what is only an error to a driver's query
	}{
		"uid":        {func(e *env) { e.identify(idA, tenancy.Identity{UID: "u-bravo", Generation: 3}) }, "u-bravo/3, want u-acme/3", false},
		"older":      {func(e *env) { e.identify(idA, tenancy.Identity{UID: "u-acme", Generation: 2}) }, "u-acme/2, want u-acme/3", false},
		"newer":      {func(e *env) { e.identify(idA, tenancy.Identity{UID: "u-acme", Generation: 4}) }, "u-acme/4, want u-acme/3", false},
		"case":       {func(e *env) { e.identify(idA, tenancy.Identity{UID: "U-ACME", Generation: 3}) }, "U-ACME/3", false},
		"no uid":     {func(e *env) { e.identify(idA, tenancy.Identity{Generation: 3}) }, "says /3", false},
		"without it": {func(*env) {}, "has no row", true},
		"no row": {func(e *env) {
			e.identify(idA, right)
			_, err := e.raw[idA].Exec("DELETE FROM " + tenancy.MetaTable)
			require.NoError(e.t, err)
		}, "has no row", false},
	} {
		for _, kind := range connectorKinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				engines(t, func(t *testing.T, open func(...envOption) *env) {
					m := &moving{}
					e := open(withMoving(m, kind, time.Hour)...)
					tc.prepare(e)
					d := m.all[idA]
					d.Identity = right
					m.set(idA, d)
					before := e.dumps()
					e.calls.reset()
					errs := e.statements(idA)
					require.NotContains(t, errs, "begun", "a transaction's function was called")
					for what, err := range errs {
						if tc.generic && kind == "driver" {
							require.ErrorIs(t, err, tenancy.ErrUnavailable, what)
							require.ErrorContains(t, err, tenancy.MetaTable, what)
							continue
						}
						require.ErrorIs(t, err, tenancy.ErrWrongDatabase, what)
						require.ErrorContains(t, err, tc.says, what)
					}
					db, err := e.plugin.OpenDB(t.Context(), idA)
					require.NoError(t, err)
					if err := db.Ping(); !tc.generic || kind != "driver" {
						require.ErrorIs(t, err, tenancy.ErrWrongDatabase)
					} else {
						require.Error(t, err)
					}
					require.NoError(t, db.Close())
					require.Equal(t, before, e.dumps(), "nothing was written")
					for _, call := range e.calls.list() {
						require.True(t, strings.HasSuffix(call, "connect") || strings.Contains(call, tenancy.MetaTable), "it was asked %s", call)
					}
					e.goneConns()
					require.NoError(t, e.in(idB).Find(&[]Order{}).Error, "the others are served")
				})
			})
		}
	}
}

func TestIdentityRight(t *testing.T) {
	for _, kind := range connectorKinds {
		t.Run(kind, func(t *testing.T) {
			engines(t, func(t *testing.T, open func(...envOption) *env) {
				m := &moving{}
				e := open(withMoving(m, kind, time.Hour)...)
				e.identify(idA, right)
				d := m.all[idA]
				d.Identity = right
				m.set(idA, d)
				for what, err := range e.statements(idA) {
					require.NoError(t, err, what)
				}
				db, err := e.plugin.OpenDB(t.Context(), idA)
				require.NoError(t, err)
				require.NoError(t, db.Ping())
				require.NoError(t, db.Close())
			})
		})
	}
}

// Each connection is asked once, and none where there is nothing to ask.
func TestIdentityIsAskedOncePerConnection(t *testing.T) {
	for _, identity := range []tenancy.Identity{{}, right} {
		t.Run(identity.String(), func(t *testing.T) {
			engines(t, func(t *testing.T, open func(...envOption) *env) {
				m := &moving{}
				e := open(withMoving(m, "driver", time.Hour)...)
				e.identify(idA, right)
				d := m.all[idA]
				d.Identity = identity
				m.set(idA, d)
				e.calls.reset()
				for range 5 {
					require.NoError(t, e.in(idA).Find(&[]Order{}).Error)
				}
				connects, asked := 0, 0
				for _, call := range e.calls.list() {
					if call == idA+": connect" {
						connects++
					}
					if strings.Contains(call, tenancy.MetaTable) {
						asked++
					}
				}
				require.Equal(t, 1, connects)
				want := 0
				if identity != (tenancy.Identity{}) {
					want = 1
				}
				require.Equal(t, want, asked)
			})
		})
	}
}

// A wrong answer of the Resolver is asked for again while it is used, whatever
// Config.Recheck is: when it is mended, so are the statements.
func TestIdentityHeals(t *testing.T) {
	for _, asks := range []string{"at once", "after many refusals"} {
		t.Run(asks, func(t *testing.T) {
			engines(t, func(t *testing.T, open func(...envOption) *env) {
				m := &moving{}
				e := open(withMoving(m, "engine", time.Hour)...)
				e.identify(idA, right)
				d := m.all[idA]
				d.Identity = tenancy.Identity{UID: right.UID, Generation: right.Generation - 1}
				m.set(idA, d)
				read := func() error { return e.in(idA).Find(&[]Order{}).Error }
				require.ErrorIs(t, read(), tenancy.ErrWrongDatabase)
				if asks == "after many refusals" {
					began := m.calls()
					require.Eventually(t, func() bool {
						require.ErrorIs(t, read(), tenancy.ErrWrongDatabase)
						return m.calls() > began // it was wrong again
					}, 10*time.Second, time.Millisecond)
				}
				d.Identity = right
				m.set(idA, d)
				require.Eventually(t, func() bool { return read() == nil }, 10*time.Second, time.Millisecond)
				failed := uint64(0)
				for _, s := range e.plugin.Stats().Servers {
					failed += s.DialsFailed
				}
				require.Equal(t, uint64(1), failed, "it waited for the refusal's end: the old pool has dialled again")
				require.Equal(t, uint64(1), e.plugin.Stats().Evicted[tenancy.CauseChanged])
			})
		})
	}
}

// Who refuses for long does not make the Resolver busy.
func TestIdentityAsksResolverSeldom(t *testing.T) {
	m := &moving{}
	e := openSQLite(t, withMoving(m, "engine", time.Hour)...)
	d := m.all[idA]
	d.Identity = right
	m.set(idA, d)
	began := time.Now()
	var wg sync.WaitGroup
	var refused atomic.Int64
	for range 4 {
		wg.Go(func() {
			for range 500 {
				if err := e.in(idA).Find(&[]Order{}).Error; err != nil {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(2000), refused.Load())
	// One to open; one for each dial, and one for each half second.
	require.LessOrEqual(t, m.calls(), 4+4*int(time.Since(began)/time.Second+1))
}

// An Identity that changes retires the pool, as any other change does.
func TestIdentityChangeRetires(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		m := &moving{}
		e := open(withMoving(m, "engine", time.Millisecond)...)
		e.identify(idA, right)
		d := m.all[idA]
		d.Identity = right
		m.set(idA, d)
		require.NoError(t, e.in(idA).Find(&[]Order{}).Error)
		tx := e.in(idA).Begin()
		require.NoError(t, tx.Error)

		next := tenancy.Identity{UID: right.UID, Generation: right.Generation + 1}
		d.Identity = next
		m.set(idA, d)
		require.Eventually(t, func() bool {
			_ = e.in(idA).Find(&[]Order{}).Error
			return e.plugin.Stats().Evicted[tenancy.CauseChanged] > 0
		}, 20*time.Second, time.Millisecond)
		require.ErrorIs(t, e.in(idA).Find(&[]Order{}).Error, tenancy.ErrWrongDatabase, "the database is not there yet")
		require.NoError(t, tx.Create(&Order{Title: "begun before"}).Error)
		require.NoError(t, tx.Commit().Error)

		e.identify(idA, next)
		require.Eventually(t, func() bool { return e.in(idA).Find(&[]Order{}).Error == nil }, 20*time.Second, time.Millisecond)
	})
}

// Two ids of one UID are one database, whatever leads there.
func TestIdentityOfTwoTenants(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		m := &moving{}
		e := open(withMoving(m, "engine", time.Hour)...)
		e.identify(idA, right)
		e.identify(idB, right)
		for _, id := range []string{idA, idB} {
			d := m.all[id]
			d.Identity = right
			m.set(id, d)
		}
		require.NoError(t, e.in(idA).Find(&[]Order{}).Error)
		err := e.in(idB).Find(&[]Order{}).Error
		require.ErrorIs(t, err, tenancy.ErrUnavailable)
		require.ErrorContains(t, err, idA)
		require.NoError(t, e.in(idA).Find(&[]Order{}).Error)

		static := tenancy.Static{}
		for id, d := range m.all {
			static[id] = d
		}
		db, err := gorm.Open(e.dialect(e.raw[mainName]), &gorm.Config{})
		require.NoError(t, err)
		engine := tenancy.Engine(tenancysqlite.Engine{})
		if e.name == "postgres" {
			engine = tenancypg.Engine{}
		}
		plugin := tenancy.New(tenancy.Config{Resolver: static, Engine: engine})
		require.ErrorContains(t, db.Use(plugin), "have the same database")
		require.NoError(t, plugin.Close(t.Context()))
	})
}
