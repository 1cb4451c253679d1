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

func TestDDLTables(t *testing.T) {
	for sql, want := range map[string][]string{
		"CREATE TABLE `plans` (`id` integer)":                 {"plans"},
		`create table if not exists "public"."Plans"(id int)`: {"plans"},
		"ALTER TABLE ONLY plans ADD COLUMN x int":             {"plans"},
		"ALTER TABLE plans RENAME TO old":                     {"plans"},
		"DROP TABLE IF EXISTS `plans` CASCADE":                {"plans"},
		"DROP TABLE orders, plans":                            {"orders", "plans"},
		"/* x */ -- y\n DROP TABLE plans":                     {"plans"},
		"TRUNCATE plans":                                      {"plans"},
		"TRUNCATE TABLE orders, ONLY plans":                   {"orders", "plans"},
		"CREATE UNIQUE INDEX IF NOT EXISTS i ON plans (name)": {"plans"},
		`CREATE INDEX "i" ON "plans" USING btree("name")`:     {"plans"},
		"CREATE TEMPORARY TABLE plans AS SELECT 1":            {"plans"},
		"CREATE OR REPLACE VIEW plans AS SELECT 1":            {"plans"},
		"  CREATE\n TABLE\n plans (id int)":                   {"plans"},
		"CREATE EXTENSION plans":                              nil,
		"SELECT * FROM plans":                                 nil,
		"DELETE FROM plans":                                   nil,
		"UPDATE plans SET name = 'CREATE TABLE plans'":        nil,
		"":           nil,
		"DROP":       nil,
		"DROP TABLE": nil,
	} {
		require.Equal(t, want, ddlTables(sql), sql)
	}
}

func TestBaseName(t *testing.T) {
	for name, want := range map[string]string{
		"plans":            "plans",
		"Plans":            "plans",
		`"plans"`:          "plans",
		"`x`.`Plans`":      "plans",
		"public.plans":     "plans",
		`"a"."b"."Plans" `: "plans",
		"":                 "",
		"ärzte":            "ärzte",
	} {
		require.Equal(t, want, baseName(name), name)
	}
}

func TestIsSavepoint(t *testing.T) {
	for query, want := range map[string]bool{
		"SAVEPOINT sp0x1":               true,
		"savepoint sp":                  true,
		"ROLLBACK TO SAVEPOINT sp":      true,
		"ROLLBACK TO sp":                true,
		"RELEASE SAVEPOINT `sp`":        true,
		"release \"sp\"":                true,
		"":                              false,
		"SAVEPOINT ":                    false,
		"ROLLBACK":                      false,
		"SAVEPOINT sp; DROP TABLE x":    false,
		"SELECT 1":                      false,
		"UPDATE savepoint SET x = 1":    false,
		"ROLLBACK TO sp -- and another": false,
	} {
		require.Equal(t, want, isSavepoint(query), query)
	}
}
