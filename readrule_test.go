package tenancy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadsOnly(t *testing.T) {
	for query, want := range map[string]bool{
		"SELECT title FROM orders":                             true,
		" \n select title from orders where x = 'update'":      true,
		"SELECT\ttitle FROM orders":                            true,
		"SELECT format(title) FROM forests":                    true,
		"SELECT title FROM orders WHERE a IN ('for','b')":      true,
		"SELECT substring(t FOR 3) FROM orders":                true,
		"":                                                     false,
		"SELECT":                                               false,
		"SELECT 1":                                             false, // dbresolver's rule: too short
		"SELECT 12345":                                         true,
		"INSERT INTO orders SELECT * FROM old":                 false,
		"WITH x AS (SELECT 1) SELECT * FROM x":                 false,
		"UPDATE orders SET title = 'select'":                   false,
		"EXPLAIN ANALYZE SELECT * FROM orders":                 false,
		"SELECT title FROM orders FOR UPDATE":                  false,
		"SELECT title FROM orders for update  ":                false,
		"SELECT title FROM orders FOR UPDATE OF orders NOWAIT": false,
		"SELECT title FROM orders FOR NO KEY UPDATE":           false,
		"SELECT title FROM orders\nFOR\n\tSHARE":               false,
		"SELECT title FROM orders FOR KEY SHARE":               false,
		"SELECT * FROM (SELECT 1 FROM orders FOR UPDATE) x":    false,
		"SELECT count(*) FROM INFORMATION_SCHEMA.tables":       false,
		"SELECT relname FROM pg_class":                         false,
		"SELECT pg_try_advisory_lock(1)":                       false,
		"SELECT name FROM sqlite_master":                       false,
		"SELECT * FROM PRAGMA_index_list('orders')":            false,
		"SELECT CURRENT_DATABASE()":                            false,
	} {
		require.Equal(t, want, readsOnly(query), "%q", query)
	}
}

// Whatever dbresolver's rule sends to the primary, ours does too.
func FuzzReadsOnly(f *testing.F) {
	for _, seed := range []string{"SELECT 1", "select title from orders for update", "\u00a0SELECT title FROM orders", "ſelect title from x", "SELECT FOR"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		raw := strings.TrimSpace(query)
		theirs := len(raw) > 10 && strings.EqualFold(raw[:6], "select") && !strings.EqualFold(raw[len(raw)-10:], "for update")
		if readsOnly(query) {
			require.True(t, theirs, "%q", query)
		}
	})
}
