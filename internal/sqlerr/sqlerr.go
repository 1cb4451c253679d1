// Package sqlerr asks the errors of PostgreSQL's and SQLite's drivers without
// importing them.
package sqlerr

import (
	"errors"
	"strings"
)

// State is the SQLSTATE of err, and "" where it has none: that of pgx's
// pgconn.PgError
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
func State(err error) string {
	var pg interface{ SQLState() string }
	if errors.As(err, &pg) {
		return pg.SQLState()
	}
	return ""
}

// Code is SQLite's extended result code (https://www.sqlite.org/rescode.html),
// and 0 where err has none.
func Code(err error) int {
	var lite interface{ Code() int }
	if errors.As(err, &lite) {
		return lite.Code()
	}
	return 0
}

// MissingTable reports whether err says that there is no such table.
func MissingTable(err error) bool {
	if state := State(err); state != "" {
		return state == "42P01" // undefined_table
	}
	return err != nil && strings.Contains(err.Error(), "no such table") // SQLite has no code for it
}

// Unique reports whether err is a unique violation.
func Unique(err error) bool {
	if state := State(err); state != "" {
		return state == "23505" // unique_violation
	}
	// SQLITE_CONSTRAINT_UNIQUE
	return Code(err) == 2067 || err != nil && strings.Contains(err.Error(), "UNIQUE constraint failed")
}
