package tenancy

import (
	"regexp"
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
	_, after, ok := strings.Cut(strings.ToUpper(sql), "JOIN")
	if !ok {
		return nil
	}
	return tablesIn(&clause.Expr{SQL: sql[len(sql)-len(after):]})
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

var (
	ddlRE = regexp.MustCompile(`(?is)^\s*(?:CREATE|ALTER|DROP|TRUNCATE)\s+(?:(?:GLOBAL|LOCAL|TEMP|TEMPORARY|UNLOGGED|VIRTUAL)\s+)*(?:TABLE|VIEW)?\s*(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?:ONLY\s+)?([^\s(;,]+)`)
	// CREATE INDEX names its table behind ON.
	indexRE = regexp.MustCompile(`(?is)^\s*CREATE\s+(?:UNIQUE\s+)?INDEX\b.*?\sON\s+(?:ONLY\s+)?([^\s(;]+)`)
)

// ddlTable returns the base name of the table that sql, if it is DDL, makes or
// changes.
func ddlTable(sql string) (string, bool) {
	if !startsDDL(sql) { // most raw SQL; the expressions cost more than all else of a statement's way
		return "", false
	}
	if m := indexRE.FindStringSubmatch(sql); m != nil {
		return baseName(m[1]), true
	}
	if m := ddlRE.FindStringSubmatch(sql); m != nil {
		return baseName(m[1]), true
	}
	return "", false
}

// startsDDL reports whether the first word of sql is one that ddlTable reads.
func startsDDL(sql string) bool {
	sql = strings.TrimLeft(sql, " \t\r\n\f") // what \s is in the expressions
	for _, word := range [...]string{"CREATE", "ALTER", "DROP", "TRUNCATE"} {
		if len(sql) > len(word) && strings.EqualFold(sql[:len(word)], word) {
			return true
		}
	}
	return false
}
