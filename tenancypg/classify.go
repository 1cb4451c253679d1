package tenancypg

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
)

// Classify says whose fault err is, by its SQLSTATE or by where it arose:
//
//   - FaultCaller: a statement's ctx was cancelled or ran out, or a connect's
//     was cancelled.
//   - FaultTenant: the server answered a connect, and refused this database or
//     this login: 3D000 and 57P04 (no such database), 55000 (it accepts no
//     connections), 28P01 and 28000 (authentication), 42501 (no privilege to
//     connect), and whatever else it says to a connect. So is a replica that
//     takes writes, see [Engine.ReplicaConnector].
//   - FaultSaturation: 53300 and 53400, too many connections.
//   - FaultServer: the connect got no answer (refused, timed out, unresolved,
//     TLS failed), the connection broke, or the server is shutting down,
//     starting or recovering (57P01 to 57P03, class 08).
//   - FaultNone: the rest. An error of BeforeConnect, unless the ctx of the
//     dial had ended, which is the caller's: nothing was asked of the server,
//     so it is no sign that the server is down, nor that it is up, and nothing
//     to remember of the tenant, whose open connections go on. An error of severity ERROR outside of a connect
//     leaves its session usable, so it is the statement's outcome whatever its
//     code: 55000 is also what currval says, and 53400 what a full
//     temp_file_limit does. 57P05 ends one session that was idle for too long.
//     And driver.ErrBadConn says that a connection is dead, but not of what: it
//     may have been a cancelled query.
//
// What Classify can't know: a connect that ran out of time looks the same
// whether connect_timeout or the deadline of the caller's ctx ended it, and
// counts as the server's fault; who has the ctx asks ctx.Err() first. And a
// 57P01 on a connection in use may be the end of one session
// (pg_terminate_backend, DROP DATABASE ... WITH (FORCE)) rather than of the
// server; the next connect tells.
//
// PgBouncer's own errors all have the code 08P01, so they are told apart by
// their words: "no more connections allowed" and "query_wait_timeout" are
// saturation, a server that it lost or can't reach is the server's fault, and
// all else that it answers to a connect is the tenant's.
//
// The codes are from the manual's appendix A, "PostgreSQL Error Codes".
func (Engine) Classify(err error) tenancy.Fault {
	if err == nil {
		return tenancy.FaultNone
	}
	if errors.Is(err, errSessionLost) {
		return tenancy.FaultServer
	}
	if errors.Is(err, errReplicaWrites) {
		return tenancy.FaultTenant
	}
	// First, because what it wraps may be of another server's, or the end of
	// a ctx that nobody here knows.
	var credErr *credentialError
	if errors.As(err, &credErr) {
		if credErr.caller {
			return tenancy.FaultCaller
		}
		return tenancy.FaultNone
	}
	var connectErr *pgconn.ConnectError
	connecting := errors.As(err, &connectErr)

	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return classifyCode(pgErr, connecting)
	}
	if errors.Is(err, context.Canceled) {
		return tenancy.FaultCaller
	}
	if connecting {
		return tenancy.FaultServer
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return tenancy.FaultCaller
	}
	if isBroken(err) {
		return tenancy.FaultServer
	}
	return tenancy.FaultNone
}

func classifyCode(e *pgconn.PgError, connecting bool) tenancy.Fault {
	severity := e.SeverityUnlocalized // absent before PostgreSQL 9.6
	if severity == "" {
		severity = e.Severity
	}
	if severity == "ERROR" && !connecting {
		return tenancy.FaultNone
	}
	if fromPooler(e) {
		return classifyPooler(e.Message, connecting)
	}
	switch e.Code {
	case "53300", "53400":
		return tenancy.FaultSaturation
	case "57P01", "57P02", "57P03":
		return tenancy.FaultServer
	case "3D000", "57P04", "55000", "28P01", "28000":
		return tenancy.FaultTenant
	case "57P05":
		return tenancy.FaultNone
	}
	if strings.HasPrefix(e.Code, "08") {
		return tenancy.FaultServer
	}
	if !connecting {
		return tenancy.FaultNone
	}
	// Out of memory or disk, and "canceling authentication due to timeout":
	// any other DSN would fare no better.
	if strings.HasPrefix(e.Code, "53") || e.Code == "57014" {
		return tenancy.FaultServer
	}
	// 42501, a startup parameter that the server does not take, a damaged
	// database: the server is there, and turns this DSN away.
	return tenancy.FaultTenant
}

// isBroken reports whether err tells of a connection that broke in use.
func isBroken(err error) bool {
	for _, target := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, target) {
			return true
		}
	}
	var opErr *net.OpError
	return errors.As(err, &opErr)
}
