package tenancysqlite

import (
	"errors"
	"strings"
	"testing"
)

// A database that is adopted may have a table of the name that is not ours.
func TestForeignMeta(t *testing.T) {
	ctx := t.Context()
	for _, table := range []string{
		"CREATE TABLE _tenant_meta (key text, value text)",
		"CREATE TABLE _TENANT_META (uid text, generation integer, catalog text)",
		"CREATE VIEW _tenant_meta AS SELECT 1 AS only_row, 'a' AS uid, 1 AS generation, 'c' AS catalog",
	} {
		sess := begin(t, newServer(t, t.TempDir()), "a")
		must(t, sess.Create(ctx, ""))
		adminExec(t, sess, table)
		for _, replaces := range []string{"", "*"} {
			m := meta("u1", 1)
			m.Replaces = replaces
			if err := sess.Mark(ctx, m); !errors.Is(err, errNotOurs) || !strings.Contains(err.Error(), "rename or drop") {
				t.Errorf("%s: %v", table, err)
			}
		}
		if _, err := sess.Owner(ctx); !errors.Is(err, errNotOurs) {
			t.Errorf("%s: %v", table, err)
		}
		kind, _, _ := strings.Cut(strings.TrimPrefix(table, "CREATE "), " ")
		adminExec(t, sess, "DROP "+kind+" _tenant_meta")
		must(t, sess.Mark(ctx, meta("u1", 1)))
		if m, err := sess.Owner(ctx); err != nil || m != meta("u1", 1) {
			t.Errorf("%s: %+v, %v", table, m, err)
		}
	}
}
