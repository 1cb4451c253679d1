package tenancy_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
)

// withRoundRobin makes where reads go predictable.
func withRoundRobin() envOption {
	return withConfig(func(c *tenancy.Config) { c.ReplicaPolicy = dbresolver.StrictRoundRobinPolicy() })
}

// Where a statement of a tenant with a replica goes.
func TestReplicaRules(t *testing.T) {
	var n int64
	const (
		primary = "primary"
		replica = "replica"
	)
	cases := map[string]struct {
		where string
		do    func(db *gorm.DB) error
	}{
		"find":        {replica, func(db *gorm.DB) error { return db.Find(&[]Order{}).Error }},
		"first":       {replica, func(db *gorm.DB) error { return db.First(&Order{}).Error }},
		"count":       {replica, func(db *gorm.DB) error { return db.Model(&Order{}).Count(&n).Error }},
		"pluck":       {replica, func(db *gorm.DB) error { return db.Model(&Order{}).Pluck("title", &[]string{}).Error }},
		"preload":     {replica, func(db *gorm.DB) error { return db.Preload("Orders").Preload("Tags").Find(&[]Customer{}).Error }},
		"joins":       {replica, func(db *gorm.DB) error { return db.Joins("Customer").Find(&[]Order{}).Error }},
		"scan":        {replica, func(db *gorm.DB) error { return db.Table("orders").Select("count(*)").Scan(&n).Error }},
		"row":         {replica, func(db *gorm.DB) error { return db.Model(&Order{}).Select("count(*)").Row().Scan(&n) }},
		"rows":        {replica, func(db *gorm.DB) error { return closeRows(db.Model(&Order{}).Rows()) }},
		"rows, a few": {replica, func(db *gorm.DB) error { return closeRows(db.Model(&Order{}).Limit(1).Rows()) }},
		"scan of a few": {replica, func(db *gorm.DB) error {
			return db.Table("orders").Select("title").Limit(10).Scan(&[]string{}).Error
		}},
		"batches": {replica, func(db *gorm.DB) error {
			return db.FindInBatches(&[]Order{}, 1, func(*gorm.DB, int) error { return nil }).Error
		}},
		"association":      {replica, func(db *gorm.DB) error { return db.Model(&Customer{ID: 1}).Association("Tags").Find(&[]Tag{}) }},
		"number of them":   {replica, func(db *gorm.DB) error { db.Model(&Customer{ID: 1}).Association("Tags").Count(); return nil }},
		"generics":         {replica, func(db *gorm.DB) error { _, err := gorm.G[Order](db).Find(db.Statement.Context); return err }},
		"Read":             {replica, func(db *gorm.DB) error { return db.Clauses(dbresolver.Read).Find(&[]Order{}).Error }},
		"raw":              {replica, func(db *gorm.DB) error { return db.Raw("SELECT count(*) FROM orders").Scan(&n).Error }},
		"raw, in any form": {replica, func(db *gorm.DB) error { return db.Raw("\n\tselect COUNT(*) from orders ").Scan(&n).Error }},
		"raw row":          {replica, func(db *gorm.DB) error { return db.Raw("SELECT count(*) FROM orders").Row().Scan(&n) }},
		"raw rows":         {replica, func(db *gorm.DB) error { return closeRows(db.Raw("SELECT title FROM orders").Rows()) }},
		"raw, Read":        {replica, func(db *gorm.DB) error { return db.Clauses(dbresolver.Read).Raw("SELECT 1").Scan(&n).Error }},
		"raw CTE, Read": {replica, func(db *gorm.DB) error {
			return db.Clauses(dbresolver.Read).Raw("WITH o AS (SELECT 1 AS n) SELECT n FROM o").Scan(&n).Error
		}},
		"exec of a select": {replica, func(db *gorm.DB) error { return db.Exec("SELECT title FROM orders").Error }},
		"sub-query": {replica, func(db *gorm.DB) error {
			return db.Where("customer_id IN (?)", db.Model(&Customer{}).Select("id")).Find(&[]Order{}).Error
		}},

		"Write": {primary, func(db *gorm.DB) error { return db.Clauses(dbresolver.Write).Find(&[]Order{}).Error }},
		"Write, preload": {primary, func(db *gorm.DB) error {
			return db.Clauses(dbresolver.Write).Preload("Orders").Preload("Tags").Find(&[]Customer{}).Error
		}},
		"raw, Write": {primary, func(db *gorm.DB) error {
			return db.Clauses(dbresolver.Write).Raw("SELECT count(*) FROM orders").Scan(&n).Error
		}},
		"raw CTE":       {primary, func(db *gorm.DB) error { return db.Raw("WITH o AS (SELECT 1 AS n) SELECT n FROM o").Scan(&n).Error }},
		"raw, short":    {primary, func(db *gorm.DB) error { return db.Raw("SELECT 1").Scan(&n).Error }},
		"create":        {primary, func(db *gorm.DB) error { return db.Create(&Tag{Name: "x"}).Error }},
		"create, batch": {primary, func(db *gorm.DB) error { return db.CreateInBatches([]Tag{{Name: "x"}, {Name: "x"}}, 1).Error }},
		"update":        {primary, func(db *gorm.DB) error { return db.Model(&Tag{}).Where("name = 'x'").Update("name", "x").Error }},
		"save":          {primary, func(db *gorm.DB) error { return db.Save(&Tag{ID: 900000, Name: "x"}).Error }},
		"delete":        {primary, func(db *gorm.DB) error { return db.Where("name = 'none'").Delete(&Tag{}).Error }},
		"Read, write":   {primary, func(db *gorm.DB) error { return db.Clauses(dbresolver.Read).Create(&Tag{Name: "x"}).Error }},
		"exec, Read": {primary, func(db *gorm.DB) error {
			return db.Clauses(dbresolver.Read).Exec("UPDATE tags SET name = 'x' WHERE name = 'x'").Error
		}},
		"exec":   {primary, func(db *gorm.DB) error { return db.Exec("UPDATE tags SET name = 'x' WHERE name = 'x'").Error }},
		"append": {primary, func(db *gorm.DB) error { return db.Model(&Customer{ID: 1}).Association("Tags").Append(&Tag{Name: "x"}) }},
		"transaction": {primary, func(db *gorm.DB) error {
			return db.Transaction(func(tx *gorm.DB) error {
				return firstOf(tx.Find(&[]Order{}).Error, tx.Raw("SELECT count(*) FROM orders").Scan(&n).Error,
					tx.Clauses(dbresolver.Read).Find(&[]Order{}).Error)
			})
		}},
		"transaction, nested": {primary, func(db *gorm.DB) error {
			return db.Transaction(func(tx *gorm.DB) error {
				return tx.Transaction(func(tx *gorm.DB) error { return tx.Find(&[]Order{}).Error })
			})
		}},
		"read-only transaction": {primary, func(db *gorm.DB) error {
			return db.Transaction(func(tx *gorm.DB) error { return tx.Find(&[]Order{}).Error }, &sql.TxOptions{ReadOnly: true})
		}},
		"connection of its own": {primary, func(db *gorm.DB) error {
			return tenancy.Conn(db.Statement.Context, db, func(c *sql.Conn) error {
				return c.QueryRowContext(db.Statement.Context, "SELECT count(*) FROM orders").Scan(&n)
			})
		}},
		"AutoMigrate": {primary, func(db *gorm.DB) error { return db.AutoMigrate(&Tag{}) }},
		"a new table": {primary, func(db *gorm.DB) error {
			type Gadget struct {
				ID   uint
				Name string `gorm:"index"`
			}
			m := db.Migrator()
			return firstOf(m.AutoMigrate(&Gadget{}), m.AutoMigrate(&Gadget{}), m.DropTable(&Gadget{}))
		}},
		"columns": {primary, func(db *gorm.DB) error { _, err := db.Migrator().ColumnTypes(&Tag{}); return err }},
	}
	locking := map[string]func(db *gorm.DB) error{
		"locking": func(db *gorm.DB) error {
			return db.Clauses(clause.Locking{Strength: "UPDATE"}).Find(&[]Order{}).Error
		},
		"share":        func(db *gorm.DB) error { return db.Clauses(clause.Locking{Strength: "SHARE"}).Find(&[]Order{}).Error },
		"raw, locking": func(db *gorm.DB) error { return db.Raw("SELECT title FROM orders FOR UPDATE").Scan(&[]string{}).Error },
		"raw, skips": func(db *gorm.DB) error {
			return db.Raw("SELECT title FROM orders FOR  UPDATE SKIP LOCKED").Scan(&[]string{}).Error
		},
		"raw, share": func(db *gorm.DB) error { return db.Raw("SELECT title FROM orders for share").Scan(&[]string{}).Error },
		"raw, key share": func(db *gorm.DB) error {
			return db.Raw("SELECT title FROM orders for key share").Scan(&[]string{}).Error
		},
		"raw, no key": func(db *gorm.DB) error {
			return db.Raw("SELECT title FROM orders FOR\nNO KEY UPDATE").Scan(&[]string{}).Error
		},
		"advisory lock": func(db *gorm.DB) error { return db.Exec("SELECT pg_advisory_xact_lock(1)").Error },
		"the server's tables": func(db *gorm.DB) error {
			return db.Raw("SELECT count(*) FROM information_schema.tables").Scan(&n).Error
		},
	}
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for name, use := range map[string]func(e *env, db *gorm.DB){"alone": nil, "with dbresolver": func(e *env, db *gorm.DB) { useResolver(t, e, db) }} {
			for _, config := range []func(*gorm.Config){
				func(*gorm.Config) {}, func(c *gorm.Config) { c.PrepareStmt, c.SkipDefaultTransaction = true, true },
			} {
				t.Run(name, func(t *testing.T) {
					opts := []envOption{withReplicas(1), withGorm(config)}
					if use != nil {
						opts = append(opts, withTenants(idA, idB, replicaName), withEarly(use))
					}
					e := open(opts...)
					if e.name == "postgres" { // SQLite knows no such locks
						for name, do := range locking {
							cases[name] = struct {
								where string
								do    func(db *gorm.DB) error
							}{primary, do}
						}
					}
					before := e.dumps(idA)
					want := map[string][]string{primary: {idA}, replica: {replicaOf(idA, 1)}}
					for under, db := range map[string]func() *gorm.DB{
						"ctx":   func() *gorm.DB { return e.in(idA) },
						"bound": func() *gorm.DB { return tenancy.For(e.db, idA) },
						"scope": func() *gorm.DB { return e.db.WithContext(e.ctx(idB)).WithContext(e.ctx(idA)) },
					} {
						for name, tc := range cases {
							require.Equal(t, want[tc.where], e.databases(func() { require.NoError(t, tc.do(db()), name) }), "%s, %s", under, name)
						}
					}
					require.Equal(t, before, e.dumps(idA)) // nothing else was written to
				})
			}
		}
	})
}

func closeRows(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	return rows.Close()
}

// firstOf is the first of errs.
func firstOf(errs ...error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

// Reads of hooks see what the write has written, also without a transaction.
func TestReplicaHooks(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		for _, skip := range []bool{false, true} {
			e := open(withReplicas(1), withGorm(func(c *gorm.Config) { c.SkipDefaultTransaction = skip }))
			for name, db := range map[string]*gorm.DB{"ctx": e.in(idA), "bound": tenancy.For(e.db, idA)} {
				var found []string
				hook := func(tx *gorm.DB) error {
					return firstOf(tx.Session(&gorm.Session{NewDB: true}).Model(&Tag{}).Order("id").Pluck("name", &found).Error)
				}
				require.Equal(t, []string{idA}, e.databases(func() {
					ctx := context.WithValue(db.Statement.Context, hookKey{}, hook)
					require.NoError(t, db.WithContext(ctx).Create(&hookedTag{Name: "new"}).Error)
				}), name)
				require.Contains(t, found, "new", name)

				// A hook of a read writes to the primary.
				write := func(tx *gorm.DB) error {
					tx = tx.Session(&gorm.Session{NewDB: true})
					return firstOf(tx.Exec("UPDATE tags SET name = 'seen' WHERE name = 'new'").Error,
						tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&Tag{Name: "of a hook"}).Error }))
				}
				require.Equal(t, []string{idA, replicaOf(idA, 1)}, e.databases(func() {
					ctx := context.WithValue(db.Statement.Context, hookKey{}, write)
					require.NoError(t, db.WithContext(ctx).First(&hookedTag{}).Error)
				}), name)
			}
			require.Equal(t, []string{"tag of acme", "seen", "of a hook", "seen", "of a hook"}, e.dump(idA)["tags"])
			require.Equal(t, []string{"tag of acme-r1"}, e.dump(replicaOf(idA, 1))["tags"])
		}
	})
}

type hookKey struct{}

// hookedTag is a Tag whose hooks are in the context.
type hookedTag struct {
	ID   uint
	Name string
}

func (hookedTag) TableName() string { return "tags" }

func (hookedTag) run(tx *gorm.DB) error {
	if hook, ok := tx.Statement.Context.Value(hookKey{}).(func(*gorm.DB) error); ok {
		return hook(tx)
	}
	return nil
}

func (h *hookedTag) AfterCreate(tx *gorm.DB) error { return h.run(tx) }
func (h *hookedTag) AfterFind(tx *gorm.DB) error   { return h.run(tx) }

// The rows of a replica carry their tenant, and can be saved to the primary.
func TestReplicaStamp(t *testing.T) {
	e := openSQLite(t, withReplicas(1))
	for name, db := range map[string]*gorm.DB{"ctx": e.in(idA), "bound": tenancy.For(e.db, idA)} {
		var o Order
		require.NoError(t, db.First(&o).Error, name)
		require.Equal(t, "order 1 of acme-r1", o.Title)
		id, ok := o.Stamp.Tenant()
		require.True(t, ok, name)
		require.Equal(t, idA, id)
		require.ErrorIs(t, e.in(idB).Save(&o).Error, tenancy.ErrWrongTenant)
		require.NoError(t, db.Save(&o).Error)
	}
	require.Equal(t, "order 1 of acme-r1", e.dump(idA)["orders"][0])
}
