// Package tenancysqlite keeps each tenant in an SQLite file of its own.
//
// [Engine] is what Config.Engine wants, and [Engine.Create] makes a new
// tenant's file. The driver is github.com/glebarez/go-sqlite, in pure Go, the
// one of the GORM dialect github.com/glebarez/sqlite, which an application
// uses for its main database.
package tenancysqlite

import (
	"database/sql/driver"
	"path/filepath"

	"github.com/gorm-tenancy/tenancy"
)

var (
	_ tenancy.Engine      = Engine{}
	_ tenancy.Dialect     = Engine{}
	_ tenancy.ServerLimit = Engine{}
)

// Engine opens SQLite files. The zero value is ready to use. It may be used by
// many goroutines at once.
//
// A DSN is a path, or a "file:" URI (https://www.sqlite.org/uri.html). A "?"
// begins a query in both; [DSN] escapes a path that holds one. The query may
// have these parameters, and no others:
//
//   - _pragma=name(value), any number of times: run on each new connection.
//     Defaults to busy_timeout(5000), foreign_keys(1) and journal_mode(WAL);
//     a pragma that the DSN sets itself takes the default's place.
//   - _txlock: deferred, immediate or exclusive; how a transaction begins that
//     is not read-only. Defaults to immediate: a deferred one that reads and
//     then writes fails with SQLITE_BUSY, at once and in spite of the
//     busy_timeout, when another wrote in between
//     (https://www.sqlite.org/lang_transaction.html).
//   - mode: rw, the default, or ro for a file that is only read.
//   - _time_format=sqlite: what the driver does anyway.
//
// The DSN is trusted: a pragma in it is SQL.
type Engine struct {
	// Dir is the directory that all tenants' files are in. With it, a DSN
	// must be a local path, which is taken as relative to Dir: an absolute
	// path, one with "..", and a symbolic link that leads out of Dir (or is
	// absolute) are errors. Set it unless the DSNs come from configuration.
	// Defaults to "", which allows any path, relative to the working
	// directory.
	Dir string
}

// Dialect returns "sqlite", the name of github.com/glebarez/sqlite's
// Dialector.
func (Engine) Dialect() string { return "sqlite" }

// ServerLimit returns 256: there is no server whose connections would run out,
// but each takes up to three file descriptors of the process, and memory.
func (Engine) ServerLimit() int { return 256 }

// Connector parses dsn and returns what opens connections to it. It looks at
// no file: one that is missing is an error of each Connect, which never
// creates it. A DSN for memory (":memory:", mode=memory) is an error, since
// each connection of a pool would have a database of its own; so is the name
// of a companion file of another database (-wal, -shm, -journal).
func (e Engine) Connector(dsn string) (driver.Connector, error) {
	f, err := e.file(dsn)
	if err != nil {
		return nil, err
	}
	return newConnector(f), nil
}

// Server returns "sqlite", followed by ":" and Dir where that is set: all
// files of one Engine share a disk. It does not depend on dsn.
func (e Engine) Server(string) string {
	if e.Dir == "" {
		return "sqlite"
	}
	return "sqlite:" + filepath.Clean(e.Dir)
}
