package tenancy

import (
	"slices"
	"strings"

	"gorm.io/gorm/clause"
)

// tablesIn returns the base names of the tables that a FROM list names:
// "plans AS p", "plans p, orders o", "public.plans JOIN orders ON ...". What
// stands in parentheses is left to the sub-query check, and a "?" to its var.
func tablesIn(expr *clause.Expr) []string {
	var (
		names []string
		vars  = expr.Vars
		depth int
		table = true // the next word is a table
	)
	for _, word := range words(expr.SQL) {
		switch {
		case word == "(":
			depth++
			table = false
		case word == ")":
			depth--
		case word == "?":
			var arg any
			if len(vars) > 0 {
				arg, vars = vars[0], vars[1:]
			}
			if t, ok := arg.(clause.Table); ok && table && depth == 0 {
				names = append(names, baseName(t.Name))
			}
			table = false
		case depth > 0:
		case word == ",", strings.EqualFold(word, "JOIN"):
			table = true
		case table && (strings.EqualFold(word, "ONLY") || strings.EqualFold(word, "LATERAL")):
		case table:
			names = append(names, baseName(word))
			table = false
		}
	}
	return names
}

// joinedTables returns the base names of the tables that a raw join names.
func joinedTables(sql string) []string {
	for i := range len(sql) {
		if after, ok := cutPrefixFold(sql[i:], "JOIN"); ok {
			return tablesIn(&clause.Expr{SQL: after})
		}
	}
	return nil
}

// words splits sql into words, "(", ")", "," and "?". A quoted name is part of
// its word; a string literal is a word of its own.
func words(sql string) (out []string) {
	for i := 0; i < len(sql); {
		c := sql[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case c == '(' || c == ')' || c == ',' || c == '?':
			out = append(out, sql[i:i+1])
			i++
			continue
		}
		start := i
		for i < len(sql) && !strings.ContainsRune(" \t\r\n(),?", rune(sql[i])) {
			if q := sql[i]; q == '"' || q == '`' || q == '\'' {
				if end := strings.IndexByte(sql[i+1:], q); end >= 0 {
					i += end + 1
				}
			}
			i++
		}
		out = append(out, sql[start:i])
	}
	return out
}

// ddlTables returns the base names of the tables that sql, if it is DDL, makes,
// changes or drops.
func ddlTables(sql string) (names []string) {
	sql = skipComments(sql)
	if !startsDDL(sql) { // most raw SQL, told by its first letters
		return nil
	}
	ws := words(sql)
	is := func(i int, any ...string) bool {
		return i < len(ws) && slices.ContainsFunc(any, func(w string) bool { return strings.EqualFold(ws[i], w) })
	}
	skip := func(i int, any ...string) int {
		for is(i, any...) {
			i++
		}
		return i
	}
	i := skip(1, "GLOBAL", "LOCAL", "TEMP", "TEMPORARY", "UNLOGGED", "VIRTUAL", "OR", "REPLACE", "UNIQUE")
	switch {
	case is(i, "INDEX") && is(0, "CREATE"): // names its table behind ON
		for i < len(ws) && !is(i, "ON") {
			i++
		}
		i++
	case is(i, "TABLE", "VIEW"):
		i++
	case !is(0, "TRUNCATE"):
		return nil
	}
	for i = skip(i, "IF", "NOT", "EXISTS", "ONLY"); i < len(ws); i = skip(i+2, "ONLY") {
		names = append(names, baseName(ws[i]))
		if !is(i+1, ",") {
			break
		}
	}
	return names
}

// startsDDL reports whether the first word of sql is one that ddlTables reads.
func startsDDL(sql string) bool {
	for _, word := range [...]string{"CREATE", "ALTER", "DROP", "TRUNCATE"} {
		if _, ok := cutPrefixFold(sql, word); ok {
			return true
		}
	}
	return false
}

// skipComments cuts off what stands before the first word of sql.
func skipComments(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f;")
		switch {
		case strings.HasPrefix(sql, "--"):
			_, sql, _ = strings.Cut(sql, "\n")
		case strings.HasPrefix(sql, "/*"):
			_, sql, _ = strings.Cut(sql, "*/")
		default:
			return sql
		}
	}
}
