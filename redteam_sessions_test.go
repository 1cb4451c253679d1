package tenancy_test

import (
	"context"
	"database/sql"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// hooked is a Tag whose hooks do what its test says.
type hooked struct {
	ID    uint
	Name  string
	hook  func(*gorm.DB) error
	after func(*gorm.DB) error
}

func (hooked) TableName() string { return "tags" }

func (h *hooked) BeforeCreate(tx *gorm.DB) error {
	if h.hook == nil {
		return nil
	}
	return h.hook(tx)
}

func (h *hooked) AfterCreate(tx *gorm.DB) error {
	if h.after == nil {
		return nil
	}
	return h.after(tx)
}

func TestRedTeam08AnotherContextOnATransaction(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		for _, ctx := range []context.Context{e.ctx(idB), context.Background(), tenant.Main(context.Background())} {
			calls := map[string]func(gorm.ConnPool) error{
				"exec":  func(p gorm.ConnPool) error { _, err := p.ExecContext(ctx, "DELETE FROM tags"); return err },
				"query": func(p gorm.ConnPool) error { _, err := p.QueryContext(ctx, "SELECT 1"); return err },
				"row": func(p gorm.ConnPool) error {
					return p.QueryRowContext(ctx, "SELECT 1").Scan(new(int))
				},
				"prepare": func(p gorm.ConnPool) error { _, err := p.PrepareContext(ctx, "SELECT 1"); return err },
			}
			for name, call := range calls {
				tx := e.in(idA).Begin()
				e.refused(tenancy.ErrTenantMismatch, func() error { return call(tx.Statement.ConnPool) })
				require.ErrorIs(t, tx.Commit().Error, tenancy.ErrTenantMismatch, name)
			}
		}
	})
}

// A callback of another plugin that changes the context behind our last one.
func TestRedTeam08CallbackBehindTheGuard(t *testing.T) {
	for _, skip := range []bool{false, true} {
		var e *env
		e = openSQLite(t, withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = skip }), withAfter(func(db *gorm.DB) {
			require.NoError(t, db.Callback().Create().After("tenancy:check").Before("gorm:create").
				Register("other", func(db *gorm.DB) { db.Statement.Context = e.ctx(idB) }))
		}))
		require.NoError(t, tenancy.Verify(e.db))
		e.unchanged(func() {
			require.ErrorIs(t, e.in(idA).Create(&Tag{Name: "x"}).Error, tenancy.ErrTenantMismatch, skip)
		})
	}
}

// Behind the guard of a read nothing is checked again: a callback that is
// registered there and sets another tenant's context is obeyed. The rows are
// stamped as what they are.
func TestRedTeam08CallbackBehindTheGuardOfReads(t *testing.T) {
	var e *env
	e = openSQLite(t, withAfter(func(db *gorm.DB) {
		require.NoError(t, db.Callback().Query().After("tenancy:route").Before("gorm:query").
			Register("other", func(db *gorm.DB) { db.Statement.Context = e.ctx(idB) }))
	}))
	var order Order
	require.NoError(t, e.in(idA).First(&order).Error)
	require.Equal(t, "order 1 of bravo", order.Title)
	id, ok := order.Tenant()
	require.True(t, ok)
	require.Equal(t, idB, id)
	require.ErrorIs(t, e.in(idA).Transaction(func(tx *gorm.DB) error { return tx.First(&order).Error }), tenancy.ErrTenantMismatch)
}

func TestRedTeam09HookChangesTheStatement(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for _, skip := range []bool{false, true} {
			e := open(withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = skip }))
			conn, err := e.raw[idB].Conn(t.Context())
			require.NoError(t, err)
			for name, hook := range map[string]func(*gorm.DB) error{
				"context": func(tx *gorm.DB) error { tx.Statement.Context = e.ctx(idB); return nil },
				"none":    func(tx *gorm.DB) error { tx.Statement.Context = context.Background(); return nil },
				"pool":    func(tx *gorm.DB) error { tx.Statement.ConnPool = e.raw[idB]; return nil },
				"conn":    func(tx *gorm.DB) error { tx.Statement.ConnPool = conn; return nil },
				"wrapper": func(tx *gorm.DB) error { tx.Statement.ConnPool = &wrapper{e.raw[idB]}; return nil },
			} {
				ctx, cancel := context.WithCancel(e.ctx(idA))
				e.unchanged(func() {
					err := e.db.WithContext(ctx).Create(&hooked{Name: "x", hook: hook}).Error
					if skip && name == "none" {
						require.NoError(t, err) // held by its tenant
						_, err := e.raw[idA].Exec("DELETE FROM tags WHERE name = 'x'")
						require.NoError(t, err)
						return
					}
					require.ErrorIs(t, err, tenancy.ErrTenantMismatch, name)
				})
				// The next one is not blocked by the first.
				e.unchanged(func() {
					require.NoError(t, e.in(idA).Create(&Tag{Name: "next"}).Error, name)
				}, idA)
				// Nor is what surrounds it half committed.
				e.unchanged(func() {
					err := e.in(idA).Transaction(func(tx *gorm.DB) error {
						require.NoError(t, tx.Create(&Tag{Name: "half"}).Error)
						_ = tx.Create(&hooked{Name: "x", hook: hook})
						return nil
					})
					require.ErrorIs(t, err, tenancy.ErrTenantMismatch, name)
				})
				// The same after the row is written.
				if !skip && name != "context" && name != "none" {
					e.unchanged(func() {
						err := e.db.WithContext(ctx).Create(&hooked{Name: "x", after: hook}).Error
						require.ErrorIs(t, err, tenancy.ErrTenantMismatch, name)
					})
				}
				require.NoError(t, e.in(idA).Create(&Tag{Name: "next"}).Error, name)
				// A hook that panics leaves a transaction, until its ctx ends.
				require.Panics(t, func() {
					e.db.WithContext(ctx).Create(&hooked{Name: "x", hook: func(*gorm.DB) error { panic(errBoom) }})
				})
				cancel()
			}
			require.NoError(t, conn.Close())
		}
	})
}

// Parent is saved along with its Child, after that one's BeforeCreate.
type Parent struct {
	ID   uint
	Name string
}

func (Parent) TableName() string { return "tags" }

type Child struct {
	ID      uint
	Text    string
	OwnerID uint
	Owner   *Parent
	hook    func(*gorm.DB) error
}

func (Child) TableName() string { return "notes" }

func (c *Child) BeforeCreate(tx *gorm.DB) error { return c.hook(tx) }

func TestRedTeam09HookMovesTheParent(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for _, skip := range []bool{false, true} {
			e := open(withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = skip }))
			e.unchanged(func() {
				err := e.in(idA).Create(&Child{Owner: &Parent{Name: "x"}, hook: func(tx *gorm.DB) error {
					tx.Statement.Context = e.ctx(idB)
					return nil
				}}).Error
				require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
			})
		}
	})
}

// Contexts that a web framework uses again for another request: pass the
// request's own.
func TestRedTeam10ContextOfTheRequest(t *testing.T) {
	e := openSQLite(t)
	ran := make(chan []string, 2)
	start := make(chan struct{})
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ctx := tenant.Pin(r.Context(), r.Header.Get("tenant"))
		go func() {
			<-start
			var out []string
			e.db.WithContext(ctx).Model(&Order{}).Order("id").Pluck("title", &out)
			ran <- out
		}()
	})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, id := range []string{idA, idB} { // one request value, used again
		r.Header.Set("tenant", id)
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	close(start)
	require.ElementsMatch(t, [][]string{ordersOf(idA), ordersOf(idB)}, [][]string{<-ran, <-ran})
}

// Without a Stamp, a row of one tenant saved under another overwrites that
// one's: no plugin can tell. With one it can't.
func TestRedTeam29RowOfAnotherTenant(t *testing.T) {
	e := openSQLite(t)
	var order Order
	require.NoError(t, e.in(idA).First(&order).Error)
	for _, write := range []func(*gorm.DB) error{
		func(db *gorm.DB) error { return db.Save(&order).Error },
		func(db *gorm.DB) error { return db.Save([]*Order{&order}).Error },
		func(db *gorm.DB) error { return db.Delete(&order).Error },
		func(db *gorm.DB) error { return db.Model(&order).Update("title", "x").Error },
		func(db *gorm.DB) error { return db.Model(&Customer{ID: 1}).Association("Orders").Append(&order) },
		func(db *gorm.DB) error { return db.Save(&Customer{ID: 1, Orders: []Order{order}}).Error },
	} {
		e.unchanged(func() { require.ErrorIs(t, write(e.in(idB)), tenancy.ErrWrongTenant) })
	}
	var tag Tag
	require.NoError(t, e.in(idA).First(&tag).Error)
	e.unchanged(func() { require.NoError(t, e.in(idB).Save(&tag).Error) }, idB)
	require.Equal(t, []string{"tag of acme"}, e.dump(idB)["tags"]) // not guaranteed to fail
}

func TestRedTeam31TransactionUsedAfterItsEnd(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		var kept *gorm.DB
		require.NoError(t, e.in(idA).Transaction(func(tx *gorm.DB) error { kept = tx; return nil }))
		e.unchanged(func() {
			require.ErrorIs(t, kept.Create(&Tag{Name: "late"}).Error, sql.ErrTxDone)
			require.ErrorIs(t, kept.WithContext(e.ctx(idB)).Create(&Tag{Name: "late"}).Error, tenancy.ErrTenantMismatch)
		})
		// A hook's tx, used later, writes to its tenant, in no transaction.
		require.NoError(t, e.in(idA).Create(&hooked{Name: "x", hook: func(tx *gorm.DB) error { kept = tx; return nil }}).Error)
		e.unchanged(func() {
			require.NoError(t, kept.Session(&gorm.Session{NewDB: true}).Create(&Tag{Name: "late"}).Error)
		}, idA)
		require.Equal(t, []string{"tag of acme", "x", "late"}, e.dump(idA)["tags"])
	})
}

func TestRedTeam32HookOnTheRootDB(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		e.unchanged(func() {
			err := e.in(idA).Create(&hooked{Name: "x", hook: func(*gorm.DB) error { return e.db.Create(&Tag{Name: "y"}).Error }}).Error
			require.ErrorIs(t, err, tenancy.ErrNoTenant)
		})
		// With the hook's context it is the right tenant, but not the
		// transaction: it survives the rollback, and does not see its rows.
		e.unchanged(func() {
			err := e.in(idA).Create(&hooked{Name: "x", after: func(tx *gorm.DB) error {
				outside := e.db.WithContext(tx.Statement.Context)
				var n int64
				require.NoError(t, outside.Model(&Tag{}).Count(&n).Error)
				require.EqualValues(t, 1, n)
				require.NoError(t, tx.Session(&gorm.Session{NewDB: true}).Model(&Tag{}).Count(&n).Error)
				require.EqualValues(t, 2, n)
				if e.name == "postgres" { // SQLite has one writer
					require.NoError(t, outside.Create(&Note{Text: "stays"}).Error)
				}
				return errBoom
			}}).Error
			require.ErrorIs(t, err, errBoom)
		}, idA)
		require.Equal(t, []string{"tag of acme"}, e.dump(idA)["tags"])
	})
}

func TestRedTeam33KeptSessions(t *testing.T) {
	e := openSQLite(t)
	kept := e.in(idA).Session(&gorm.Session{})
	require.Equal(t, ordersOf(idB), titles(t, kept.WithContext(e.ctx(idB))))
	e.refused(tenancy.ErrNoTenant, func() error { return kept.WithContext(t.Context()).Find(&[]Order{}).Error })
	// What was kept, also with a nil context, stays a's.
	require.Equal(t, ordersOf(idA), titles(t, kept))
	//lint:ignore SA1012 a nil context is what is shown
	require.Equal(t, ordersOf(idA), titles(t, kept.WithContext(nil)))
}

// secret is a value that is made for the tenant whose context GORM shows it.
type secret struct{}

func (secret) GormValue(ctx context.Context, _ *gorm.DB) clause.Expr {
	id, _ := tenant.ID(ctx)
	return clause.Expr{SQL: "?", Vars: []any{"key of " + id}}
}

// GORM makes some values while the chain is built: WithContext comes first.
func TestRedTeam34ValuesMadeWhileChaining(t *testing.T) {
	e := openSQLite(t)
	var got string
	require.NoError(t, e.in(idB).Raw("SELECT ?", secret{}).Scan(&got).Error)
	require.Equal(t, "key of bravo", got)
	require.NoError(t, e.in(idA).Raw("SELECT ?", secret{}).WithContext(e.ctx(idB)).Scan(&got).Error)
	require.Equal(t, "key of acme", got) // no plugin sees that
}

func TestRedTeam42NothingIsKeptInSettings(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		res := e.in(idA).Set("mine", 1).Preload("Customer.Plan").Find(&[]Order{})
		require.NoError(t, res.Error)
		res.Statement.Settings.Range(func(key, _ any) bool {
			require.Equal(t, "mine", key)
			return true
		})
		q := e.in(idA).Set("mine", 1).Session(&gorm.Session{})
		require.Equal(t, ordersOf(idA), titles(t, q))
		require.Equal(t, ordersOf(idB), titles(t, q.WithContext(e.ctx(idB))))
		var plan Plan
		require.NoError(t, q.First(&plan).Error)
		require.Equal(t, "plan of main", plan.Name)
		require.Equal(t, ordersOf(idB), titles(t, q.WithContext(e.ctx(idB))))
		e.refused(tenancy.ErrNoTenant, func() error { return q.WithContext(context.Background()).Find(&[]Order{}).Error })
	})
}
