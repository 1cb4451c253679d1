package tenancy

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm/clause"
)

func TestTablesIn(t *testing.T) {
	for sql, want := range map[string][]string{
		"plans":                         {"plans"},
		`"plans"`:                       {"plans"},
		"plans p":                       {"plans"},
		"plans AS p":                    {"plans"},
		"PLANS":                         {"plans"},
		"`plans` AS `p`":                {"plans"},
		`"public"."plans" p`:            {"plans"},
		"public.plans":                  {"plans"},
		"orders, plans p":               {"orders", "plans"},
		"orders o JOIN plans p ON 1=1":  {"orders", "plans"},
		"ONLY plans":                    {"plans"},
		"(SELECT * FROM plans) AS p":    nil,
		"(?) AS p":                      nil,
		"(SELECT 1) AS x, plans":        {"plans"},
		"orders o LEFT JOIN (x) y ON 1": {"orders"},
	} {
		require.Equal(t, want, tablesIn(&clause.Expr{SQL: sql}), sql)
	}
	require.Equal(t, []string{"plans"}, tablesIn(&clause.Expr{SQL: "? AS p", Vars: []any{clause.Table{Name: "plans"}}}))
	require.Equal(t, []string{"plans"}, joinedTables("LEFT JOIN plans ON plans.id = orders.id"))
	require.Equal(t, []string{"a", "plans"}, joinedTables("join a on a.x = 'JOIN' inner join \"plans\" on 1"))
}

func TestDDLTable(t *testing.T) {
	for sql, want := range map[string]string{
		"CREATE TABLE `plans` (`id` integer)":                 "plans",
		`create table if not exists "public"."plans"(id int)`: "plans",
		"ALTER TABLE ONLY plans ADD COLUMN x int":             "plans",
		"ALTER TABLE plans RENAME TO old":                     "plans",
		"DROP TABLE IF EXISTS `plans`":                        "plans",
		"TRUNCATE plans":                                      "plans",
		"CREATE UNIQUE INDEX IF NOT EXISTS i ON plans (name)": "plans",
		`CREATE INDEX "i" ON "plans" USING btree("name")`:     "plans",
		"CREATE TEMPORARY TABLE plans (id int)":               "plans",
		"  CREATE\n TABLE\n plans (id int)":                   "plans",
	} {
		got, ok := ddlTable(sql)
		require.True(t, ok, sql)
		require.Equal(t, want, got, sql)
	}
	_, ok := ddlTable("UPDATE plans SET name = 'CREATE TABLE plans'")
	require.False(t, ok)
}

func TestIsSavepoint(t *testing.T) {
	for _, q := range []string{"SAVEPOINT sp1", "ROLLBACK TO SAVEPOINT sp1", "rollback to sp1", "RELEASE SAVEPOINT sp_1"} {
		require.True(t, isSavepoint(q), q)
	}
	for _, q := range []string{"", "SAVEPOINT ", "SAVEPOINT a; DELETE FROM t", "SAVEPOINT a b", "SAVEPOINTS", "ROLLBACK", "DELETE FROM savepoint"} {
		require.False(t, isSavepoint(q), q)
	}
}
