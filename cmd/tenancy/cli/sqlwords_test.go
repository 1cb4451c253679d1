package cli

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOneStatement(t *testing.T) {
	for _, query := range []string{
		"SELECT 1", "SELECT 1;", " ; ", "SELECT ';'", `SELECT ";"`, "SELECT `;`", "SELECT [;]", "SELECT 'it''s;'",
		"SELECT 1 -- ; DELETE", "SELECT 1; -- the end", "SELECT /* ; */ 1; /* ; */ ", "SELECT 1 /* open ;",
		"CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; DELETE FROM c; END",
		"CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END;",
	} {
		_, err := oneStatement(query)
		if query == " ; " {
			require.ErrorContains(t, err, "empty")
			continue
		}
		require.NoError(t, err, query)
	}
	for _, query := range []string{
		"SELECT 1; SELECT 2", "SELECT 1;;SELECT 2", "SELECT ''; DELETE FROM a", "/* */;DELETE FROM a; SELECT 1",
		"SELECT 'a''; DELETE FROM a' ; DELETE FROM a", "SELECT 1; /* */ x", "SELECT 1 -- \n; DELETE FROM a", "SELECT [a]];b",
	} {
		_, err := oneStatement(query)
		if query == "/* */;DELETE FROM a; SELECT 1" {
			require.Error(t, err)
			continue
		}
		require.ErrorContains(t, err, "several", query)
	}
}

func TestReads(t *testing.T) {
	for query, reads := range map[string]bool{
		"select 1": true, "/* */ SELECT 1": true, "-- x\nVALUES (1)": true, "WITH x AS (SELECT 1) SELECT 1": true,
		"EXPLAIN DELETE FROM a": true, "pragma table_info(a)": true, "PRAGMA main.table_info(a)": false,
		"PRAGMA journal_mode(DELETE)": false, "PRAGMA user_version": false, "DELETE FROM a": false, "ATTACH 'a' AS b": false,
		"VACUUM": false, "(SELECT 1)": false,
	} {
		w, err := oneStatement(query)
		require.NoError(t, err)
		require.Equal(t, reads, w.reads(), query)
	}
}

func FuzzOneStatement(f *testing.F) {
	f.Add("SELECT ';' FROM [a;b] -- x\n; DELETE")
	f.Fuzz(func(t *testing.T, query string) {
		if _, err := oneStatement(query); err == nil {
			// What is one statement is several with another one behind it, unless
			// that is in its comment or quotes.
			for rest := query; rest != ""; {
				token, after := token(rest)
				require.Less(t, len(after), len(rest))
				require.LessOrEqual(t, len(token)+len(after), len(rest))
				rest = after
			}
		}
	})
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"acme": "acme", `C:\dir "x"`: `C:\dir "x"`, "ä 漢": "ä 漢", "a\nb": `a\nb`, "\x1b[31m": `\x1b[31m`,
		"\\\n\"": "\\\\n\"", "\xff": `\xff`, "": "",
	} {
		require.Equal(t, want, printable(text))
	}
}

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"tenancy: create: tenant acme: suspended: it is suspended; call Unsuspend to serve it again": "create: tenant acme: suspended: it is suspended; run `shop resume ID` to serve it again",
		"x; call Suspend or Resume again to make it sure":                                            "x; run `shop suspend` or `shop resume` again to make it sure",
		"x; call Resume, or Remove":                                                                  "x; run `shop resume`, or `shop remove`",
		"x; use Move":                                                                                "x; use `shop move`",
		"Resume is not called; Resume stays":                                                         "Resume is not called; Resume stays",
		"one\ntwo\n":                                                                                 "one; two",
		"a hook panicked: x\ngoroutine 7 [running]:":                                                 "a hook panicked: x",
	} {
		require.Equal(t, want, oneLine("shop", errors.New(text)))
	}
	require.Equal(t, "a: b", oneLine("shop", fmt.Errorf("a: %w", errors.New("tenancy: b"))))
}
