package cli

import (
	"errors"
	"slices"
	"strings"
	"unicode"
)

// words is what a statement begins with.
type words struct{ first, second string }

// oneStatement makes sure that an SQLite text is one statement: the driver runs
// all that it finds. A semicolon in the body of a trigger ends no statement.
func oneStatement(query string) (words, error) {
	var found []string
	trigger := false
	ended := false
	w := words{}
	for rest := query; rest != ""; {
		token, after := token(rest)
		rest = after
		switch {
		case token == "":
			continue // space, or a comment
		case ended:
			return w, errors.New("these are several statements; exec runs one")
		case token == ";" && !trigger:
			ended = true
			continue
		}
		if len(found) < 4 {
			found = append(found, strings.ToUpper(token))
			trigger = found[0] == "CREATE" && slices.Contains(found, "TRIGGER")
		}
	}
	if len(found) == 0 {
		return w, errors.New("the statement is empty")
	}
	found = append(found, "", "")
	w.first, w.second = found[0], found[1]
	return w, nil
}

// reading are the pragmas that only read whatever is behind their name.
var reading = []string{"TABLE_INFO", "TABLE_XINFO", "TABLE_LIST", "INDEX_LIST", "INDEX_INFO", "INDEX_XINFO", "FOREIGN_KEY_LIST",
	"FOREIGN_KEY_CHECK", "INTEGRITY_CHECK", "QUICK_CHECK", "COMPILE_OPTIONS", "DATABASE_LIST"}

// reads reports whether the statement can be one that only reads.
func (w words) reads() bool {
	switch w.first {
	case "SELECT", "WITH", "VALUES", "EXPLAIN":
		return true
	case "PRAGMA":
		return slices.Contains(reading, w.second)
	}
	return false
}

// token cuts the next token off: a word, a quoted text, a single character, or
// "" for a space or a comment.
func token(s string) (token, rest string) {
	until := func(end string, skip int) int {
		if i := strings.Index(s[skip:], end); i >= 0 {
			return skip + i + len(end)
		}
		return len(s)
	}
	switch {
	case strings.HasPrefix(s, "--"):
		return "", s[until("\n", 2):]
	case strings.HasPrefix(s, "/*"):
		return "", s[until("*/", 2):]
	}
	switch c := s[0]; c {
	case '\'', '"', '`':
		n := until(string(c), 1) // a doubled quote is two texts, which comes to the same
		return s[:n], s[n:]
	case '[':
		n := until("]", 1)
		return s[:n], s[n:]
	}
	letter := func(r rune) bool { return r == '_' || r == '$' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	if n := strings.IndexFunc(s, func(r rune) bool { return !letter(r) }); n != 0 {
		if n < 0 {
			n = len(s)
		}
		return s[:n], s[n:]
	}
	for i, r := range s {
		if i > 0 {
			return s[:i], s[i:]
		}
		if unicode.IsSpace(r) {
			return "", s[len(string(r)):]
		}
	}
	return s, ""
}
