package tenancy_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

type namedArgs struct{ S *gorm.DB }

// EmbeddedArgs is exported, so that GORM looks into it.
type EmbeddedArgs struct{ S *gorm.DB }

// TestSubqueryErrorFailsTheStatement puts a sub-query that has an error where
// GORM would drop the error and go on with "NOT IN ()", true for every row.
func TestSubqueryErrorFailsTheStatement(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open()
		a := e.in(idA)
		bad := func() *gorm.DB {
			bad := a.Model(&Customer{}).Select("id")
			_ = bad.AddError(errBoom)
			return bad
		}
		good := func() *gorm.DB { return a.Model(&Customer{}) }
		before := e.dumps()
		for name, run := range map[string]func() error{
			"positional":   func() error { return a.Where("id NOT IN (?)", bad()).Delete(&Card{}).Error },
			"sql.Named":    func() error { return a.Where("id NOT IN (@s)", sql.Named("s", bad())).Delete(&Card{}).Error },
			"named map":    func() error { return a.Where("id NOT IN (@s)", map[string]any{"s": bad()}).Delete(&Card{}).Error },
			"named struct": func() error { return a.Where("id NOT IN (@S)", namedArgs{bad()}).Delete(&Card{}).Error },
			"named embedded": func() error {
				return a.Where("id NOT IN (@S)", struct{ EmbeddedArgs }{EmbeddedArgs{bad()}}).Delete(&Card{}).Error
			},
			"Exec":      func() error { return a.Exec("DELETE FROM cards WHERE id NOT IN (?)", bad()).Error },
			"Exec name": func() error { return a.Exec("DELETE FROM cards WHERE id NOT IN (@s)", sql.Named("s", bad())).Error },
			"Raw":       func() error { return a.Raw("SELECT * FROM cards WHERE id NOT IN (?)", bad()).Scan(&[]Card{}).Error },
			"nested": func() error {
				return a.Where("id NOT IN (?)", a.Model(&Card{}).Select("id").Where("customer_id NOT IN (?)", bad())).Delete(&Card{}).Error
			},
			"in the joins of a sub-query": func() error {
				return a.Where("id NOT IN (?)", good().Select("customers.id").Joins("JOIN cards c ON c.id NOT IN (?)", bad())).Delete(&Card{}).Error
			},
			"as a table of a sub-query": func() error {
				return a.Where("id NOT IN (?)", a.Table("(?) AS x", bad()).Select("id")).Delete(&Card{}).Error
			},
			"map": func() error {
				return a.Model(&Card{}).Where("id = 1").Updates(map[string]any{"customer_id": bad()}).Error
			},
			"map pointer": func() error {
				return a.Model(&Card{}).Where("id = 1").Updates(&map[string]any{"customer_id": bad()}).Error
			},
			"main": func() error {
				return e.main().Where("id NOT IN (?)", e.main().Table("").Where("x = (?)", bad())).Delete(&Card{}).Error
			},
		} {
			require.Error(t, run(), name)
			require.Equal(t, before, e.dumps(), name)
		}
		dry := a.Session(&gorm.Session{DryRun: true, Logger: logger.Default})
		_ = dry.AddError(errBoom)
		require.Empty(t, dry.Find(&[]Card{}).Statement.SQL.String(), "only sub-queries are given a text")
	})
}

func TestSubqueriesOfOtherDatabases(t *testing.T) {
	e := openSQLite(t)
	a, b, main := e.in(idA), e.in(idB), e.main()
	customers := func(db *gorm.DB) *gorm.DB { return db.Model(&Customer{}).Select("id") }
	plans := func() *gorm.DB { return e.db.Model(&Plan{}).Select("id") }
	e.calls.reset()
	find := func(db *gorm.DB) error { return db.Find(&[]Card{}).Error }
	for name, c := range map[string]struct {
		reason error
		run    func() error
	}{
		"named, of B":    {tenancy.ErrTenantMismatch, func() error { return find(a.Where("id IN (@s)", sql.Named("s", customers(b)))) }},
		"named struct":   {tenancy.ErrTenantMismatch, func() error { return find(a.Where("id IN (@S)", namedArgs{customers(b)})) }},
		"named, of main": {tenancy.ErrCrossDatabase, func() error { return find(a.Where("id IN (@s)", map[string]any{"s": plans()})) }},
		"joins of it": {tenancy.ErrCrossDatabase, func() error {
			return find(a.Where("id IN (?)", customers(a).Joins("JOIN plans ON plans.id = customers.plan_id")))
		}},
		"relation of it": {tenancy.ErrCrossDatabase, func() error { return find(a.Where("id IN (?)", customers(a).Joins("Plan"))) }},
		"in its joins": {tenancy.ErrTenantMismatch, func() error {
			return find(a.Where("id IN (?)", customers(a).Joins("JOIN cards c ON c.id IN (?)", customers(b))))
		}},
		"as its table": {tenancy.ErrTenantMismatch, func() error { return find(a.Where("id IN (?)", a.Table("(?) AS x", customers(b)).Select("id"))) }},
		"clause.From": {tenancy.ErrCrossDatabase, func() error {
			return find(a.Clauses(clause.From{Joins: []clause.Join{{Table: clause.Table{Name: "plans"}}}}))
		}},
		"main in A's":       {tenancy.ErrCrossDatabase, func() error { return find(a.Where("id IN (?)", customers(main))) }},
		"A's in main's":     {tenancy.ErrCrossDatabase, func() error { return find(main.Where("id IN (?)", customers(a))) }},
		"pointer to a map":  {tenancy.ErrTenantMismatch, func() error { return a.Model(&Card{ID: 1}).Updates(&map[string]any{"customer_id": customers(b)}).Error }},
		"embedded, of main": {tenancy.ErrCrossDatabase, func() error { return find(a.Where("id IN (@S)", struct{ EmbeddedArgs }{EmbeddedArgs{plans()}})) }},
	} {
		require.ErrorIs(t, c.run(), c.reason, name)
		require.Empty(t, e.calls.list(), name)
	}
	// And those of the same one work.
	require.NoError(t, find(a.Where("id IN (@s)", sql.Named("s", customers(a)))))
	require.NoError(t, find(a.Where("customer_id IN (@S)", namedArgs{customers(e.db)})))
	require.NoError(t, find(main.Where("id IN (?)", customers(main))))
	require.NoError(t, find(main.Where("id IN (?)", plans())))
	require.NoError(t, a.Where("id IN (?)", a.Model(&Plan{}).Select("id")).Find(&[]Plan{}).Error)
	require.NoError(t, a.WithContext(tenant.Main(context.Background())).Where("id IN (?)", a.Model(&Plan{}).Select("id")).Find(&[]Plan{}).Error)
	require.NoError(t, a.Joins("JOIN customers ON customers.name <> '"+strings.Repeat("ɐ", 60)+"'").Find(&[]Order{}).Error)
}
