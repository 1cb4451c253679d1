package tenancysqlite

import (
	"context"
	"errors"
	"syscall"

	sqlite "github.com/glebarez/go-sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// Classify says whose fault err is, by SQLite's result code
// (https://www.sqlite.org/rescode.html) or the operating system's error:
//
//   - FaultCaller: the ctx ended (SQLITE_INTERRUPT).
//   - FaultTenant: the file is missing, no regular file or not inside of
//     Engine.Dir, may not be opened, is no database or damaged, or was moved
//     away while open (SQLITE_CANTOPEN, _NOTADB, _CORRUPT, _PERM, _AUTH,
//     _READONLY_DBMOVED).
//   - FaultSaturation: no file descriptor is left.
//   - FaultServer: the disk is full or fails, or memory is out (SQLITE_FULL,
//     _IOERR, _NOMEM).
//   - FaultNone: the rest, SQLITE_BUSY and _LOCKED with it, which are one
//     statement's outcome.
func (Engine) Classify(err error) tenancy.Fault {
	if err == nil {
		return tenancy.FaultNone
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return tenancy.FaultCaller
	}
	if errors.Is(err, migrate.ErrLocked) || errors.Is(err, tenancy.ErrWrongDatabase) {
		return tenancy.FaultNone // the file is there, and answers
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return tenancy.FaultSaturation
	}
	if errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) {
		return tenancy.FaultServer
	}
	var sqliteErr *sqlite.Error
	if errors.As(err, &sqliteErr) {
		return classifyCode(sqliteErr.Code())
	}
	var fileErr *fileError
	if errors.As(err, &fileErr) {
		return tenancy.FaultTenant
	}
	return tenancy.FaultNone
}

func classifyCode(code int) tenancy.Fault {
	if code == sqlite3.SQLITE_READONLY_DBMOVED {
		return tenancy.FaultTenant
	}
	switch code & 0xff { // the primary result code
	case sqlite3.SQLITE_INTERRUPT:
		return tenancy.FaultCaller
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT,
		sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return tenancy.FaultTenant
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM:
		return tenancy.FaultServer
	}
	return tenancy.FaultNone
}
