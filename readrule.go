package tenancy

import (
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// The settings by which dbresolver's clauses Write and Read mark a statement
// (dbresolver clauses.go, Operation.ModifyStatement); it does not export them.
const (
	hintWrite = "gorm:db_resolver:write"
	hintRead  = "gorm:db_resolver:read"
)

// mayRead returns the pool of a statement on base that may run on a replica, or
// base. The rules are dbresolver's (dbresolver callbacks.go, switchReplica and
// switchGuess), but that a doubt means the primary. So does Exec of what is no
// SELECT, whatever its clause says: it gives no rows, so it is there to write.
func mayRead(stmt *gorm.Statement, v verb, base gorm.ConnPool) gorm.ConnPool {
	if v.writes() {
		return base
	}
	if _, write := stmt.Settings.Load(hintWrite); write {
		return base
	}
	guess := false
	if stmt.SQL.Len() > 0 {
		_, read := stmt.Settings.Load(hintRead)
		guess = !read || v == verbRaw
	} else if _, locking := stmt.Clauses["FOR"]; locking || v == verbRow && looksAtColumns(stmt) {
		return base
	}
	switch base := base.(type) {
	case *router:
		if guess {
			return &base.guesser
		}
		return &base.reader
	case *bound:
		if guess {
			return &base.guesser
		}
		return &base.reader
	}
	return base
}

// looksAtColumns reports whether stmt, of verbRow, is what a Migrator asks, who
// wants a table's columns as they are and not as they were: Table(t).Limit(1),
// and nothing else (gorm.io/driver/postgres migrator.go, GetRows; gorm
// migrator/migrator.go, ColumnTypes).
func looksAtColumns(stmt *gorm.Statement) bool {
	limit, ok := stmt.Clauses["LIMIT"].Expression.(clause.Limit)
	return ok && limit.Limit != nil && *limit.Limit == 1 && len(stmt.Clauses) == 1 &&
		stmt.TableExpr != nil && len(stmt.Selects) == 0
}

// elsewhere are words that, anywhere in a raw SELECT, make it one for the
// primary: what it asks for differs there, as what migrations ask, or locks, or
// is of the session.
var elsewhere = [...]string{"information_schema", "pg_", "sqlite_", "pragma_", "current_schema", "current_database"}

// readsOnly guesses, as dbresolver does, whether raw SQL can run on a replica.
func readsOnly(query string) bool {
	query = strings.TrimSpace(query)
	if _, ok := cutPrefixFold(query, "select"); !ok || len(query) <= 10 {
		return false
	}
	for i := len("select"); i < len(query); i++ {
		switch query[i] | ' ' { // in lower case
		case 'f':
			if locksRows(query[i:]) {
				return false
			}
		case 'c', 'i', 'p', 's':
			for _, word := range elsewhere {
				if _, ok := cutPrefixFold(query[i:], word); ok {
					return false
				}
			}
		}
	}
	return true
}

// locksRows reports whether query begins with FOR UPDATE or the like.
func locksRows(query string) bool {
	rest, ok := cutPrefixFold(query, "for")
	if !ok {
		return false
	}
	word := strings.TrimLeft(rest, " \t\r\n\f\v")
	if len(word) == len(rest) {
		return false
	}
	for _, mode := range [...]string{"update", "no", "share", "key"} {
		if _, ok := cutPrefixFold(word, mode); ok {
			return true
		}
	}
	return false
}
