package tenancy_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/glebarez/sqlite"
	"gorm.io/driver/postgres"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// eachPoint runs test for every entry point that the engine has.
func eachPoint(t *testing.T, e *env, test func(t *testing.T, p point)) {
	for _, p := range points() {
		if p.engine != "" && p.engine != e.name {
			continue
		}
		t.Run(p.name, func(t *testing.T) { test(t, p) })
	}
}

// state is the whole content and shape of every database, read raw.
type state map[string]string

// gadgetSchema is a query for all there is of the Migrator's tables.
func (e *env) gadgetSchema() string {
	schema := "SELECT group_concat(coalesce(sql, name), ';') FROM (SELECT * FROM sqlite_master WHERE name LIKE '%gadget%' ORDER BY name)"
	if e.name == "postgres" {
		schema = `SELECT coalesce(string_agg(line, ';' ORDER BY line), '') FROM (
			SELECT table_name || '.' || column_name || ' ' || data_type || coalesce(character_maximum_length::text, '') AS line FROM information_schema.columns WHERE table_name LIKE '%gadget%'
			UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename LIKE '%gadget%'
			UNION ALL SELECT conname::text FROM pg_constraint WHERE conname LIKE '%gadget%') x`
	}
	return "coalesce((" + schema + "), '')"
}

func (e *env) state() state {
	e.t.Helper()
	agg := func(what, table string) string {
		if e.name == "postgres" {
			return "(SELECT coalesce(string_agg(" + what + ", ',' ORDER BY " + what + "), '') FROM " + table + ")"
		}
		return "(SELECT coalesce(group_concat(x, ','), '') FROM (SELECT " + what + " AS x FROM " + table + " ORDER BY 1))"
	}
	q := "SELECT " + strings.Join([]string{
		agg("id || ' ' || name", "plans"),
		agg("id || ' ' || name || ' ' || coalesce(plan_id, 0)", "customers"),
		agg("id || ' ' || title || ' ' || coalesce(customer_id, 0) || coalesce(CAST(deleted AS TEXT), '')", "orders"),
		agg("id || ' ' || number || ' ' || coalesce(customer_id, 0)", "cards"),
		agg("id || ' ' || name", "tags"),
		agg("id || ' ' || text || ' ' || owner_id", "notes"),
		agg("customer_id || ' ' || tag_id", "customer_tags"),
		e.gadgetSchema(),
	}, " || '|' || ")
	out := state{}
	for name, db := range e.raw {
		var s string
		require.NoError(e.t, db.QueryRow(q).Scan(&s))
		out[name] = s
	}
	return out
}

// changed lists the databases that differ from before.
func (s state) changed(before state) (names []string) {
	for name := range s {
		if s[name] != before[name] {
			names = append(names, name)
		}
	}
	return names
}

// refresh brings the named databases back to how seed made them, raw.
func (e *env) refresh(names ...string) {
	e.t.Helper()
	for _, name := range names {
		var shape string
		require.NoError(e.t, e.raw[name].QueryRow("SELECT "+e.gadgetSchema()).Scan(&shape))
		reshape := shape == "" || shape != e.gadgets
		drop := "DROP VIEW IF EXISTS gadgets_view; DROP TABLE IF EXISTS gadgets; DROP TABLE IF EXISTS gadgets_old; DROP TABLE IF EXISTS gadget_copies;"
		clear := "DELETE FROM customer_tags; DELETE FROM notes; DELETE FROM cards; DELETE FROM orders; DELETE FROM tags; DELETE FROM customers; DELETE FROM plans;"
		dialector := gorm.Dialector(&sqlite.Dialector{Conn: e.raw[name]})
		if e.name == "postgres" { // TRUNCATE makes new files for each table
			for _, table := range []string{"notes", "cards", "orders", "tags", "customers", "plans"} {
				clear += "SELECT setval('" + table + "_id_seq', 1, false);"
			}
			dialector = postgres.New(postgres.Config{Conn: e.raw[name]})
		} else {
			clear += "DELETE FROM sqlite_sequence WHERE 1;"
		}
		if !reshape {
			drop = ""
		}
		for _, q := range strings.SplitAfter(drop+clear, ";") {
			if _, err := e.raw[name].Exec(q); err != nil && !strings.Contains(err.Error(), "no such table: sqlite_sequence") {
				require.NoError(e.t, err, q)
			}
		}
		db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
		require.NoError(e.t, err)
		plantRows(e.t, db, name)
		if reshape {
			require.NoError(e.t, db.AutoMigrate(&Gadget{}))
			require.NoError(e.t, e.raw[name].QueryRow("SELECT "+e.gadgetSchema()).Scan(&e.gadgets))
			// Connections have cached plans of the old shape; after DDL the
			// library's users retire the pool too.
			e.plugin.Evict(name)
		}
	}
}

func (e *env) withGadgets() *env {
	e.t.Helper()
	names := []string{}
	for name := range e.raw {
		names = append(names, name)
	}
	e.refresh(names...)
	e.initial = e.state()
	return e
}

// succeeds runs p on db and proves that it met database and nothing else.
func (e *env) succeeds(t *testing.T, p point, database string, db *gorm.DB, ctx context.Context) {
	t.Helper()
	before := e.initial // refresh has brought it back
	got, err := p.run(db, ctx)
	if p.noRoute && database != mainName {
		require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
		require.Empty(t, e.state().changed(before))
		return
	}
	require.NoError(t, err)
	after := e.state()
	if p.writes {
		require.Equal(t, []string{database}, after.changed(before), "the databases that changed")
		e.refresh(database)
		return
	}
	require.Empty(t, after.changed(before), "a read changed a database")
	if got != yesAnswer {
		require.Contains(t, got, "of "+database)
		for name := range e.raw {
			if name != database {
				require.NotContains(t, got, "of "+name)
			}
		}
	}
}

// refuses runs p on db and proves that it fails with reason and that no
// database was asked anything.
func (e *env) refuses(t *testing.T, p point, reason error, db *gorm.DB, ctx context.Context) {
	t.Helper()
	before := e.initial // refresh has brought it back
	e.calls.reset()
	got, err := p.run(db, ctx)
	for _, call := range e.calls.list() {
		if p.noRoute && call == mainName+": connect" {
			continue // gorm's Connection takes main's connection before any callback runs
		}
		t.Errorf("a database was asked: %s", call)
	}
	require.Empty(t, e.state().changed(before))
	if p.noError {
		require.Empty(t, got)
		return
	}
	if p.ownError == e.name {
		require.Error(t, err)
		return
	}
	require.ErrorIs(t, err, reason)
	require.Contains(t, err.Error(), "tenancy: ", "the error names the operation")
}

func TestEntryPointsRefused(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for name, opts := range map[string][]envOption{
			"plain":                  nil,
			"PrepareStmt":            {withGorm(func(c *gorm.Config) { c.PrepareStmt = true })},
			"SkipDefaultTransaction": {withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = true })},
		} {
			t.Run(name, func(t *testing.T) {
				e := open(opts...).withGadgets()
				for _, s := range []struct {
					name   string
					ctx    context.Context
					reason error
				}{
					{"no tenant", context.Background(), tenancy.ErrNoTenant},
					{"empty", tenant.Ctx(context.Background(), ""), tenancy.ErrNoTenant},
					{"invalid", tenant.Ctx(context.Background(), "../acme"), tenancy.ErrInvalidTenant},
					{"unknown", tenant.Ctx(context.Background(), "nobody"), tenancy.ErrTenantNotFound},
					{"pin conflict", tenant.Ctx(tenant.Pin(context.Background(), idA), idB), tenancy.ErrTenantMismatch},
				} {
					t.Run(s.name, func(t *testing.T) {
						eachPoint(t, e, func(t *testing.T, p point) {
							reason := s.reason
							if p.noRoute && reason == tenancy.ErrTenantNotFound {
								reason = tenancy.ErrTenantMismatch // refused before anyone asks the resolver
							}
							e.refuses(t, p, reason, e.db.WithContext(s.ctx), s.ctx)
							if name == "plain" && s.name != "pin conflict" {
								e.refuses(t, p, reason, e.db.Session(&gorm.Session{PrepareStmt: true, Context: s.ctx}), s.ctx)
							}
						})
					})
				}
				t.Run("bound to another tenant", func(t *testing.T) {
					eachPoint(t, e, func(t *testing.T, p point) {
						ctx := e.ctx(idB)
						e.refuses(t, p, tenancy.ErrTenantMismatch, tenancy.For(e.db, idA).WithContext(ctx), ctx)
					})
				})
			})
		}
	})
}

func TestEntryPointsInAnotherTenantsTransaction(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open().withGadgets()
		for name, session := range map[string]*gorm.DB{
			"plain":       e.in(idA),
			"PrepareStmt": e.db.Session(&gorm.Session{PrepareStmt: true, Context: e.ctx(idA)}),
			"bound":       tenancy.For(e.db, idA),
		} {
			for who, ctx := range map[string]context.Context{
				"other tenant": e.ctx(idB),
				"no tenant":    context.Background(),
				"main":         tenant.Main(context.Background()),
			} {
				if name == "bound" && who == "no tenant" {
					continue // means the bound tenant
				}
				t.Run(name+"/"+who, func(t *testing.T) {
					eachPoint(t, e, func(t *testing.T, p point) {
						if p.noTx {
							return
						}
						before := e.initial
						err := session.Transaction(func(tx *gorm.DB) error {
							require.NoError(t, tx.Create(&Tag{Name: "half a piece of work"}).Error)
							_, err := p.run(tx.WithContext(ctx), ctx)
							if p.ownError == e.name {
								require.Error(t, err)
							} else if !p.noError {
								require.ErrorIs(t, err, tenancy.ErrTenantMismatch)
							}
							return nil // nobody looks at it
						})
						require.ErrorIs(t, err, tenancy.ErrTenantMismatch, "Commit returns the refusal")
						require.Empty(t, e.state().changed(before), "and has rolled back")
					})
				})
			}
		}
	})
}

func TestEntryPointsReachTheirTenant(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for name, opts := range map[string][]envOption{
			"plain":                  nil,
			"PrepareStmt":            {withGorm(func(c *gorm.Config) { c.PrepareStmt = true })},
			"SkipDefaultTransaction": {withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = true })},
		} {
			t.Run(name, func(t *testing.T) {
				e := open(opts...).withGadgets()
				situations := []struct {
					name string
					run  func(t *testing.T, p point)
				}{
					// Both tenants one after the other: with a cache keyed by
					// SQL text the second meets the first one's statements.
					{"context", func(t *testing.T, p point) {
						e.succeeds(t, p, idA, e.in(idA), e.ctx(idA))
						e.succeeds(t, p, idB, e.in(idB), e.ctx(idB))
					}},
					{"main", func(t *testing.T, p point) {
						e.succeeds(t, p, mainName, e.main(), tenant.Main(context.Background()))
					}},
					{"For", func(t *testing.T, p point) {
						e.succeeds(t, p, idA, tenancy.For(e.db, idA), context.Background())
					}},
					{"With", func(t *testing.T, p point) {
						require.NoError(t, tenancy.With(context.Background(), e.db, idB, func(ctx context.Context, db *gorm.DB) error {
							e.succeeds(t, p, idB, db, ctx)
							return nil
						}))
					}},
					{"WithTenant", func(t *testing.T, p point) {
						db := e.db.Scopes(tenancy.WithTenant(idA))
						if p.noScope {
							e.refuses(t, p, tenancy.ErrNoTenant, db, context.Background())
							return
						}
						e.succeeds(t, p, idA, db.Session(&gorm.Session{}), context.Background())
					}},
					{"Session PrepareStmt", func(t *testing.T, p point) {
						for _, id := range []string{idA, idB} {
							e.succeeds(t, p, id, e.db.Session(&gorm.Session{PrepareStmt: true, Context: e.ctx(id)}), e.ctx(id))
						}
					}},
					{"transaction", func(t *testing.T, p point) {
						for _, session := range []*gorm.DB{e.in(idA), e.db.Session(&gorm.Session{PrepareStmt: true, Context: e.ctx(idA)}), tenancy.For(e.db, idA)} {
							e.commits(t, p, session, e.ctx(idA))
						}
					}},
					{"PrepareStmt inside a transaction", func(t *testing.T, p point) {
						e.commits(t, p, e.in(idB), e.ctx(idB), &gorm.Session{PrepareStmt: true})
					}},
				}
				if name != "plain" {
					situations = []struct {
						name string
						run  func(t *testing.T, p point)
					}{situations[0], situations[1], situations[6]}
				}
				for _, s := range situations {
					t.Run(s.name, func(t *testing.T) {
						eachPoint(t, e, func(t *testing.T, p point) { s.run(t, p) })
					})
				}
				require.NoError(t, tenancy.Verify(e.db))
			})
		}
	})
}

// commits runs p inside a transaction: what it does is seen after Commit, in
// its tenant alone.
func (e *env) commits(t *testing.T, p point, session *gorm.DB, ctx context.Context, inner ...*gorm.Session) {
	t.Helper()
	if p.noTx {
		return
	}
	id, _ := tenant.ID(ctx)
	before := e.initial // refresh has brought it back
	var got string
	err := session.Transaction(func(tx *gorm.DB) (err error) {
		for _, s := range inner {
			tx = tx.Session(s)
		}
		got, err = p.run(tx, ctx)
		return err
	})
	require.NoError(t, err)
	if p.writes {
		require.Equal(t, []string{id}, e.state().changed(before))
		e.refresh(id)
		return
	}
	require.Empty(t, e.state().changed(before))
	if got != yesAnswer {
		require.Contains(t, got, "of "+id)
	}
}

func TestDryRunNeedsNoTenant(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		sql := e.db.ToSQL(func(tx *gorm.DB) *gorm.DB { return tx.Model(&Order{}).Where("id = ?", 7).Find(&[]Order{}) })
		require.Contains(t, sql, "id = 7")
		sub := e.db.Model(&Customer{}).Select("id").Where("name = ?", "x")
		sql = e.db.ToSQL(func(tx *gorm.DB) *gorm.DB { return tx.Where("customer_id IN (?)", sub).Delete(&Order{}) })
		require.Contains(t, sql, "customers")
		dry := e.db.Session(&gorm.Session{DryRun: true})
		res := dry.Create(&Tag{Name: "x"})
		require.NoError(t, res.Error)
		require.Contains(t, res.Statement.SQL.String(), "INSERT")
		require.NoError(t, dry.Model(&Tag{ID: 1}).Update("name", "x").Error)
		require.NoError(t, dry.Delete(&Tag{ID: 1}).Error)
		require.Empty(t, e.calls.list())
		require.ErrorIs(t, e.db.Find(&[]Order{}).Error, tenancy.ErrNoTenant, "and leaves nothing behind")
	})
}
