package tenancygrpc

import (
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/refusal"
)

// Status returns err as the status that tells a caller what it means:
//
//   - NotFound for [tenancy.ErrTenantNotFound], and the very same for
//     [ErrForbidden] and for a context that means another tenant: who may not use a
//     tenant does not learn whether it exists;
//   - InvalidArgument for [tenancy.ErrNoTenant], for the main database where it is
//     refused, and for [tenancy.ErrInvalidTenant];
//   - FailedPrecondition for [tenancy.ErrTenantSuspended]: trying again is of no
//     use until somebody resumes the tenant;
//   - Unavailable for [tenancy.ErrTenantBehind], with a RetryInfo of 30 seconds, and
//     for [tenancy.ErrUnavailable], [tenancy.ErrPoolExhausted] and
//     [tenancy.ErrClosed], with one of 5;
//   - DeadlineExceeded and Canceled for the context's errors;
//   - Internal for all else.
//
// Its message is a fixed text, and so is what its Error method returns: nothing of
// err is in it. Within this process, in an interceptor that logs for instance, err
// is still found by errors.Is and errors.As.
//
// nil is nil, and an error that is a status is returned as it is.
//
// Handlers behind the interceptors need not call it for an error that is, or wraps,
// a [tenancy.Error], as those of statements do, or one of a [Client]. Errors of
// anything else the interceptors leave as they are.
func Status(err error) error {
	if err == nil || isStatus(err) {
		return err
	}
	st := statusOf(err)
	return &statusError{status: st, text: st.Err().Error(), cause: err}
}

// mapped is Status for what a handler has returned.
func mapped(err error) error {
	if is := new(tenancy.Error); errors.As(err, &is) {
		return Status(err)
	}
	var is *statusError
	if isStatus(err) || !errors.As(err, &is) {
		return err
	}
	// Of a status that is wrapped, package status sends the text of the whole
	// (status.FromError), and that of a Client's names tenants.
	return &statusError{status: is.status, text: is.status.Err().Error(), cause: err}
}

// refused is Status for what the interceptors refuse, with the tenant put to an
// error that does not say it.
func refused(id string, err error) error {
	if is := new(tenancy.Error); !isStatus(err) && !errors.As(err, &is) {
		err = &tenancy.Error{Op: "grpc", Tenant: id, Cause: err}
	}
	return Status(err)
}

// isStatus reports whether err is a status and not only wraps one: that of another
// service, a resolver's for instance, tells of that service.
func isStatus(err error) bool {
	_, ok := err.(interface{ GRPCStatus() *status.Status })
	return ok
}

func statusOf(err error) *status.Status {
	switch meaning := refusal.Of(err); meaning {
	case refusal.NotFound:
		return status.New(codes.NotFound, "tenant not found")
	case refusal.NoTenant:
		return status.New(codes.InvalidArgument, "the call names no tenant")
	case refusal.InvalidTenant:
		return status.New(codes.InvalidArgument, "the call names no valid tenant")
	case refusal.Suspended:
		return status.New(codes.FailedPrecondition, "tenant suspended")
	case refusal.Behind:
		return unavailable("tenant is being upgraded", meaning.RetryAfter())
	case refusal.Unavailable:
		return unavailable("service unavailable", meaning.RetryAfter())
	case refusal.DeadlineExceeded:
		return status.New(codes.DeadlineExceeded, "deadline exceeded")
	case refusal.Canceled:
		return status.New(codes.Canceled, "canceled")
	}
	return status.New(codes.Internal, "internal error")
}

func unavailable(text string, retryAfter time.Duration) *status.Status {
	plain := status.New(codes.Unavailable, text)
	st, err := plain.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	if err != nil { // only of a message that can't be marshalled
		return plain
	}
	return st
}

// statusError is a status with its cause, which stays in this process.
type statusError struct {
	status *status.Status
	text   string
	cause  error
}

func (e *statusError) GRPCStatus() *status.Status { return e.status }
func (e *statusError) Error() string              { return e.text }
func (e *statusError) Unwrap() error              { return e.cause }
