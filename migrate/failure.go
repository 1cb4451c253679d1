package migrate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"syscall"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
)

// fault is what a failed attempt says of what to do next.
type fault struct {
	transient bool // it may go away by itself
	server    bool // the whole server can't be reached
	lost      bool // the connection may be gone before what ran on it
	sqlState  string
	version   int64  // of the migration that failed; 0 if none had begun
	key       string // of those that are the same
}

// transient are the SQLSTATEs of failures that go away by themselves, and
// transientClasses their classes
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
var (
	transient = map[string]bool{
		"40001": true, // serialization_failure
		"40P01": true, // deadlock_detected
		"55P03": true, // lock_not_available: lock_timeout
		"55006": true, // object_in_use
		"57P01": true, // admin_shutdown: the session was ended
		"57P02": true, // crash_shutdown
		"57P03": true, // cannot_connect_now
		"57P05": true, // idle_session_timeout
		"25P03": true, // idle_in_transaction_session_timeout
	}
	transientClasses = map[string]bool{
		"08": true, // connection_exception
		"53": true, // insufficient_resources: too many connections, disk full
		"58": true, // system_error
	}
)

// judge says what to do about an error, of which classify is the engine's
// opinion. Once the database was open it is not the server's fault: it may be
// that of a migration, which asks anybody, or brings the server down.
func judge(err error, opened bool, classify func(error) tenancy.Fault) fault {
	var f fault
	var failed *FailedError
	if errors.As(err, &failed) {
		f.version = failed.Version
	}
	what := classify(err)
	f.sqlState = sqlerr.State(err)
	switch {
	case errors.Is(err, ErrPooler), errors.Is(err, tenancy.ErrWrongDatabase), errors.Is(err, tenancy.ErrTenantNotFound):
	case what == tenancy.FaultServer:
		f.transient, f.server, f.lost = true, !opened, true
	case errors.Is(err, ErrLocked), what == tenancy.FaultSaturation:
		f.transient = true
	case f.sqlState != "":
		f.transient = transient[f.sqlState] || transientClasses[f.sqlState[:min(2, len(f.sqlState))]]
	default:
		f.lost = lostConnection(err)
		f.transient = f.lost || busySQLite(err) || !opened // no migration has begun
	}
	f.key = fmt.Sprintf("%d/%s", f.version, f.sqlState)
	if f.sqlState == "" {
		f.key += likeness(err)
	}
	return f
}

func lostConnection(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, context.DeadlineExceeded)
}

// busySQLite: 5 and 6 are SQLITE_BUSY and SQLITE_LOCKED; the rest of the number
// says more.
func busySQLite(err error) bool {
	code := sqlerr.Code(err) & 0xff
	return code == 5 || code == 6
}

var varying = regexp.MustCompile(`"[^"]*"|'[^']*'|[0-9]+`)

// likeness is what the messages of the same failure in different databases have
// in common.
func likeness(err error) string {
	const longest = 200
	text := varying.ReplaceAllString(err.Error(), "_")
	return strings.ToValidUTF8(text[:min(longest, len(text))], "")
}
