package tenancy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDDLTable(t *testing.T) {
	for sql, want := range map[string]string{
		`CREATE TABLE plans (id int)`:                       "plans",
		"\n\tcreate table if not exists \"Plans\" (id int)": "plans",
		`ALTER TABLE ONLY public."plans" ADD COLUMN x int`:  "plans",
		`DROP TABLE IF EXISTS plans CASCADE`:                "plans",
		`TRUNCATE plans`:                                    "plans",
		"CREATE UNIQUE INDEX `i` ON `plans` (`id`)":         "plans",
		`CREATE TEMPORARY TABLE plans AS SELECT 1`:          "plans",
		`SELECT * FROM plans`:                               "",
		`DELETE FROM plans`:                                 "",
		`UPDATE plans SET name = 'DROP TABLE plans'`:        "",
		``:     "",
		`DROP`: "",
	} {
		got, ok := ddlTable(sql)
		require.Equal(t, want, got, sql)
		require.Equal(t, want != "", ok, sql)
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
