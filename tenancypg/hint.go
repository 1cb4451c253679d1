package tenancypg

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// explain says what was being done, and what to do about err where that can be
// known from its SQLSTATE.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("tenancypg: %s: %w%s", doing, err, hint(err))
}

func hint(err error) string {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return ""
	}
	text := hintOf(e)
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func hintOf(e *pgconn.PgError) string {
	switch e.Code {
	case "42501": // insufficient_privilege
		switch {
		// The server's words, from src/backend/commands/dbcommands.c and
		// storage/ipc/procarray.c and signalfuncs.c.
		case strings.Contains(e.Message, "create database"):
			return "give the administrator CREATEDB: ALTER ROLE ... CREATEDB"
		case strings.Contains(e.Message, "terminate"), strings.Contains(e.Message, "superuser process"):
			return "to end others' connections, the administrator needs: GRANT pg_signal_backend TO ...; those of a superuser only a superuser can end"
		case strings.Contains(e.Message, "set parameter"):
			return "only a superuser sets this one, or who has: GRANT SET ON PARAMETER ... TO ..., since PostgreSQL 15"
		case strings.Contains(e.Message, "schema"):
			return "the administrator must own the database, or have CREATE on its schema public: ALTER DATABASE ... OWNER TO ..."
		}
		return "the administrator must own the database and what is in it, or be a member of the role that does"
	case "53100": // disk_full
		return "the server's disk is full: free space on it, and run this again"
	case "53300": // too_many_connections
		return "the server has no free connection: raise max_connections, or lower what the applications use"
	case "3D000": // invalid_catalog_name
		return "the database does not exist (any more)"
	case "55006": // object_in_use
		return "somebody or something uses the database: sessions of a template, prepared transactions, replication slots and subscriptions have to end first"
	case "55000": // object_not_in_prerequisite_state
		if strings.Contains(e.Message, "invalid database") {
			return "a DROP DATABASE was interrupted: Create or Drop finishes it"
		}
	case "57P01", "57P02", "57P03": // shutdown, crash, starting up
		return "the server or an administrator ended the connection: run this again"
	}
	// What the operating system said of a file, where the server has no code
	// for it (src/backend/utils/error/elog.c, errcode_for_file_access).
	switch {
	case strings.Contains(e.Message, "No space left on device"), strings.Contains(e.Message, "Disk quota exceeded"):
		return "the server's disk is full: free space on it, and run this again"
	case strings.Contains(e.Message, "File too large"):
		return "the server may not write so large a file: raise the limit on file sizes under which it runs (ulimit -f, systemd's LimitFSIZE), or that of its file system, and run this again"
	}
	return ""
}
