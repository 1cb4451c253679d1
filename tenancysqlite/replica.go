package tenancysqlite

import (
	"database/sql/driver"
	"errors"
	"slices"
	"strings"

	sqlite "github.com/glebarez/go-sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gorm-tenancy/tenancy"
)

var _ tenancy.ReplicaEngine = Engine{}

// ReplicaConnector is [Engine.Connector] for a file that something else keeps
// up to date, and that is only read: mode=ro, whatever the DSN says, and no
// journal_mode, which is the affair of who writes it.
func (e Engine) ReplicaConnector(dsn string) (driver.Connector, error) {
	f, err := e.file(dsn)
	if err != nil {
		return nil, err
	}
	f.query.Set("mode", "ro")
	f.query["_pragma"] = slices.DeleteFunc(f.query["_pragma"], func(p string) bool { return pragmaName(p) == "journal_mode" })
	return newConnector(f), nil
}

// ReplicaRefused reports whether a statement would have written
// (SQLITE_READONLY), or names a table or column that is not in the file, and
// may be in the primary's since a moment ago.
func (Engine) ReplicaRefused(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_READONLY:
		return e.Code() != sqlite3.SQLITE_READONLY_DBMOVED
	case sqlite3.SQLITE_ERROR: // SQLite has no code for these (src/resolve.c, build.c)
		return strings.Contains(e.Error(), "no such table") || strings.Contains(e.Error(), "no such column")
	}
	return false
}
