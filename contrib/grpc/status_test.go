package tenancygrpc_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gorm-tenancy/tenancy"
	tenancygrpc "github.com/gorm-tenancy/tenancy/contrib/grpc"
)

func TestStatus(t *testing.T) {
	type answer struct {
		code  codes.Code
		after time.Duration
	}
	for reason, want := range map[error]answer{
		tenancy.ErrTenantNotFound:  {codes.NotFound, 0},
		tenancygrpc.ErrForbidden:   {codes.NotFound, 0},
		tenancy.ErrNoTenant:        {codes.InvalidArgument, 0},
		tenancy.ErrInvalidTenant:   {codes.InvalidArgument, 0},
		tenancy.ErrTenantSuspended: {codes.FailedPrecondition, 0},
		tenancy.ErrTenantBehind:    {codes.Unavailable, 30 * time.Second},
		tenancy.ErrUnavailable:     {codes.Unavailable, 5 * time.Second},
		tenancy.ErrPoolExhausted:   {codes.Unavailable, 5 * time.Second},
		tenancy.ErrClosed:          {codes.Unavailable, 5 * time.Second},
		context.DeadlineExceeded:   {codes.DeadlineExceeded, 0},
		context.Canceled:           {codes.Canceled, 0},
		tenancy.ErrTenantMismatch:  {codes.Internal, 0},
		tenancy.ErrWrongDatabase:   {codes.Internal, 0},
		errors.New("s3cret"):       {codes.Internal, 0},
	} {
		for _, err := range []error{reason,
			fmt.Errorf("the handler: %w", &tenancy.Error{Op: "query", Tenant: "s3cret", Err: reason, Cause: errors.New("s3cret")})} {
			got := tenancygrpc.Status(err)
			require.ErrorIs(t, got, reason)
			require.NotContains(t, got.Error(), "s3cret")
			require.NotContains(t, requireStatus(t, want.code, got), "s3cret")
			st := status.Convert(got)
			require.NotEmpty(t, st.Message())
			require.Contains(t, got.Error(), st.Message())
			var after time.Duration
			for _, detail := range st.Details() {
				after = detail.(*errdetails.RetryInfo).GetRetryDelay().AsDuration()
			}
			require.Equal(t, want.after, after)
		}
	}
	require.NoError(t, tenancygrpc.Status(nil))
	own := status.Error(codes.NotFound, "no such order")
	require.Equal(t, own, tenancygrpc.Status(own))
	again := tenancygrpc.Status(tenancy.ErrTenantBehind)
	require.Equal(t, again, tenancygrpc.Status(again))
}
