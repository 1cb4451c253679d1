package tenancysqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// The files of a Server. A database has the name that the catalog gave it
// while the application may open it; what is in front of the name says what
// else it is.
const (
	creating = ".creating-" // not yet a database: Create and Restore fill it
	dumping  = ".dumping-"  // a copy that Dump writes out
	fenced   = ".fenced-"   // a database that is closed to the application
	sealed   = ".template-" // a template, complete
	dropped  = ".dropped-"  // no database any more: Drop removes it
	lockFile = ".lock-"     // who has it locked has the session
)

var prefixes = []string{creating, dumping, fenced, sealed, dropped, lockFile}

// maxName is what catalog.Server allows. With a prefix and a companion's
// suffix it stays below the 255 bytes of most file systems.
const maxName = 63

// checkName returns an error unless name is one of a file that lies directly
// in a Server's directory, and that no other database's file can have. There
// is one way to write each name, since each name has one lock.
func checkName(name string) error {
	if err := badName(name); err != nil {
		return fmt.Errorf("tenancysqlite: the database name %q can't be used: %w", clip(name), err)
	}
	return nil
}

func badName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case len(name) > maxName:
		return fmt.Errorf("it has %d bytes, more than %d", len(name), maxName)
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("it holds a NUL byte")
	case !filepath.IsLocal(name) || filepath.Clean(name) != name || name == ".":
		return errors.New("it is not the name of a file in the server's directory")
	case strings.Contains(name, "/") || strings.ContainsFunc(name, isSeparator):
		return errors.New("it holds a path separator")
	case runtime.GOOS == "windows" && strings.ContainsAny(name, `:*?"<>|`):
		return errors.New("no file can have this name on Windows")
	case name == ":memory:":
		return errors.New("SQLite takes it for a database in memory")
	}
	lower := strings.ToLower(name) // some file systems fold case
	for _, suffix := range companions {
		if strings.HasSuffix(lower, suffix) {
			return fmt.Errorf("SQLite keeps a part of another database under names with %s", suffix)
		}
	}
	for _, prefix := range prefixes {
		if strings.HasPrefix(lower, prefix) {
			return fmt.Errorf("names with %s are the server's own", prefix)
		}
	}
	return nil
}

func isSeparator(r rune) bool { return r < 0x80 && os.IsPathSeparator(uint8(r)) }

// clip shortens what an error shows.
func clip(name string) string {
	if len(name) > 2*maxName {
		return name[:2*maxName] + "..."
	}
	return name
}
