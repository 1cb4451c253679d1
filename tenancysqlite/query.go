package tenancysqlite

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// defaultPragmas are run on each connection, in this order, unless the DSN has
// its own of the same name. busy_timeout comes first, so that the others wait
// for a lock too.
var defaultPragmas = []string{"busy_timeout(5000)", "foreign_keys(1)", "journal_mode(WAL)"}

// checkQuery returns the query that goes to the driver.
func checkQuery(q url.Values) (url.Values, error) {
	out := url.Values{}
	for key, values := range q {
		if key != "_pragma" && len(values) > 1 {
			// SQLite takes one of them and the driver another.
			return nil, fmt.Errorf("the DSN has %s more than once", key)
		}
		for _, v := range values {
			if strings.IndexByte(v, 0) >= 0 {
				return nil, errors.New("the DSN holds a NUL byte")
			}
		}
		switch key {
		case "_pragma", "_txlock", "mode", "_time_format":
		default:
			// vfs=memdb would be a database in memory again; and SQLite
			// ignores a misspelt parameter.
			if !isName(key) { // a server's URL that was mangled, maybe, and its password
				return nil, errors.New("the DSN's query is malformed")
			}
			return nil, fmt.Errorf("the DSN has an unknown parameter: %q", key)
		}
	}

	switch mode := q.Get("mode"); mode {
	case "", "rw":
		out.Set("mode", "rw") // SQLite's default would create a missing file
	case "ro":
		out.Set("mode", "ro")
	default:
		return nil, fmt.Errorf("the DSN's mode must be rw or ro, not %q", mode)
	}

	switch lock := strings.ToLower(q.Get("_txlock")); lock {
	case "":
		if out.Get("mode") == "rw" { // BEGIN IMMEDIATE needs a file to write
			out.Set("_txlock", "immediate")
		}
	case "deferred", "immediate", "exclusive":
		out.Set("_txlock", lock)
	default:
		return nil, fmt.Errorf("the DSN's _txlock must be deferred, immediate or exclusive, not %q", lock)
	}

	// The driver stops at a _time_format and never looks at _txlock
	// (go-sqlite v1.23.0, sqlite.go, applyQueryParams), and "sqlite", the only
	// one that it knows, is also what it does without (formatTime): so it is
	// left out.
	if format := q.Get("_time_format"); format != "" && format != "sqlite" {
		return nil, fmt.Errorf("the DSN's _time_format must be sqlite, not %q", format)
	}

	own := q["_pragma"]
	for _, def := range defaultPragmas {
		if !hasPragma(own, pragmaName(def)) && (def != "journal_mode(WAL)" || out.Get("mode") == "rw") {
			out.Add("_pragma", def)
		}
	}
	for _, p := range own {
		out.Add("_pragma", p)
	}
	return out, nil
}

// isName reports whether s is what a parameter is called.
func isName(s string) bool {
	for _, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return false
		}
	}
	return s != ""
}

func hasPragma(pragmas []string, name string) bool {
	for _, p := range pragmas {
		if pragmaName(p) == name {
			return true
		}
	}
	return false
}

// pragmaName returns the name in "name(value)", "name=value", "schema.name".
func pragmaName(p string) string {
	if i := strings.IndexAny(p, "(="); i >= 0 {
		p = p[:i]
	}
	if i := strings.LastIndexByte(p, '.'); i >= 0 {
		p = p[i+1:]
	}
	return strings.ToLower(strings.TrimSpace(p))
}
