package tenancy

import (
	"errors"
	"strconv"
	"strings"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// The reasons for which a statement is refused or can't be run. They are
// tested with [errors.Is], through every GORM verb; [Error] has the details.
var (
	// ErrNoTenant is returned when the context names no tenant. There is no
	// default: put the id into the context with [tenant.Ctx], or mean the
	// main database with [tenant.Main].
	ErrNoTenant = tenant.ErrMissing
	// ErrInvalidTenant is returned when the id can't be a tenant's id; see
	// [tenant.Validate].
	ErrInvalidTenant = tenant.ErrInvalid
	// ErrTenantNotFound is returned by a [Resolver] that does not know the
	// tenant.
	ErrTenantNotFound = errors.New("tenant not found")
	// ErrTenantSuspended is returned by a [Resolver] for a tenant that exists
	// but is not to be served.
	ErrTenantSuspended = errors.New("tenant suspended")
	// ErrTenantBehind is returned when a tenant's schema is older than
	// [Config.Schema] allows.
	ErrTenantBehind = errors.New("tenant's schema is behind")
	// ErrTenantMismatch is returned when a statement and what it would run on
	// (a transaction, a connection, a bound db) belong to different
	// databases, and when a pinned context was given another tenant.
	ErrTenantMismatch = tenant.ErrMismatch
	// ErrMainInTenantTx is returned for a write to a main model inside a
	// tenant's transaction, which could not be atomic.
	ErrMainInTenantTx = errors.New("write to a main model in a tenant's transaction")
	// ErrCrossDatabase is returned for one statement that would need the main
	// database and a tenant's at once: a join, a sub-query, a main model's
	// table inside a tenant's database.
	ErrCrossDatabase = errors.New("statement spans the main database and a tenant's")
	// ErrWrongTenant is returned for a write of a row, marked by [Stamp], that
	// was loaded from another database.
	ErrWrongTenant = errors.New("row belongs to another tenant")
	// ErrWrongDatabase is returned when a tenant's database says that it is
	// another's; see [Identity].
	ErrWrongDatabase = errors.New("database belongs to another tenant")
	// ErrPoolExhausted is returned when no connection came free in time.
	ErrPoolExhausted = errors.New("connection pool exhausted")
	// ErrUnavailable is returned when a tenant's database can't be reached or
	// found out now; trying again later may help.
	ErrUnavailable = errors.New("tenant database unavailable")
	// ErrClosed is returned after [Plugin.Close].
	ErrClosed = errors.New("tenancy is closed")
)

// Error is the type of every refusal and failure of this package. It never
// holds a DSN.
type Error struct {
	// Op is what was tried: "query", "begin", "open", ...
	Op string
	// Tenant is the id of the tenant that was asked for; "" when none was.
	// It is not checked: quote it before it goes to a terminal or a log.
	Tenant string
	// Err is the reason, one of the Err variables of this package.
	Err error
	// Detail says what exactly was wrong, and Hint what to do next. Both may
	// be empty.
	Detail, Hint string
	// Cause is the error behind it, for instance the resolver's. May be nil.
	Cause error
}

// Error returns one line: operation, tenant, reason, cause, next step.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("tenancy: ")
	b.WriteString(e.Op)
	if e.Tenant != "" {
		b.WriteString(": tenant ")
		b.WriteString(quoteID(e.Tenant))
	}
	if e.Err != nil && (e.Cause == nil || !strings.HasPrefix(e.Cause.Error(), e.Err.Error())) {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	if e.Detail != "" {
		b.WriteString(": ")
		b.WriteString(e.Detail)
	}
	if e.Cause != nil {
		b.WriteString(": ")
		b.WriteString(e.Cause.Error())
	}
	if e.Hint != "" {
		b.WriteString("; ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// Unwrap makes errors.Is and errors.As see the reason and the cause.
func (e *Error) Unwrap() []error {
	errs := make([]error, 0, 2)
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// quoteID returns id as it is when it is valid, and quoted otherwise: what
// came from outside must not write control characters into a log.
func quoteID(id string) string {
	if tenant.Validate(id) == nil {
		return id
	}
	return strconv.Quote(id)
}
