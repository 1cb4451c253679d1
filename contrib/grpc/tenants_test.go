package tenancygrpc_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/gorm-tenancy/tenancy"
	tenancygrpc "github.com/gorm-tenancy/tenancy/contrib/grpc"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Calls and streams of several tenants at once, over one connection: each writes
// into its own tenant's database.
func TestCallsOfManyTenantsAtOnce(t *testing.T) {
	ids := []string{"acme", "bravo", "charlie"}
	app := notes.New(t, ids...)
	dial := serve(t, func(ctx context.Context, in string) (string, error) {
		id, _ := tenant.ID(ctx)
		return "", app.Add(ctx, in+" of "+id)
	}, serverOptions(newServer(t, tenancygrpc.Config{Check: app.Plugin.Check}))...)
	conn := dial(clientOptions(tenancygrpc.Client{})...)
	const times = 25
	var wg sync.WaitGroup
	for id, want := range map[string]codes.Code{
		"acme": codes.OK, "bravo": codes.OK, "charlie": codes.OK,
		"nobody": codes.NotFound, "closed": codes.FailedPrecondition, "old": codes.Unavailable,
	} {
		ctx := tenant.Ctx(context.Background(), id)
		wg.Go(func() {
			for range times {
				if _, err := ask(ctx, conn, "call"); status.Code(err) != want {
					t.Errorf("%s: %v, want %s", id, err, want)
					return
				}
			}
		})
		wg.Go(func() {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := conn.NewStream(ctx, &service.Streams[0], chatMethod)
			if err != nil {
				t.Error(err)
				return
			}
			for range times {
				_, err := say(stream, "message")
				if status.Code(err) != want {
					t.Errorf("%s: %v, want %s", id, err, want)
				}
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		want := []string{"note of " + id}
		for range times {
			want = append(want, "call of "+id, "message of "+id)
		}
		require.ElementsMatch(t, want, app.Raw(t, id))
	}
}

// A tenant may be suspended after the interceptor has let the call in, and a
// stream outlives it: the next statement is refused, whose error the handler
// returns as it is.
func TestSuspendedMeanwhile(t *testing.T) {
	app := notes.New(t, "acme")
	dial := serve(t, func(ctx context.Context, in string) (string, error) {
		if in == "suspend" {
			app.Suspend("acme")
		}
		if err := app.Add(ctx, in); err != nil {
			return "", fmt.Errorf("s3cret: %w", err)
		}
		return "added", nil
	}, serverOptions(newServer(t, tenancygrpc.Config{Check: app.Plugin.Check}))...)
	ctx, cancel := context.WithCancel(tenant.Ctx(context.Background(), "acme"))
	defer cancel()
	conn := dial(clientOptions(tenancygrpc.Client{})...)
	stream, err := conn.NewStream(ctx, &service.Streams[0], chatMethod)
	require.NoError(t, err)
	got, err := say(stream, "first")
	require.NoError(t, err)
	require.Equal(t, "added", got)
	_, err = ask(ctx, conn, "suspend")
	require.NotContains(t, requireStatus(t, codes.FailedPrecondition, err), "s3cret")
	_, err = say(stream, "second")
	require.Equal(t, status.New(codes.FailedPrecondition, "tenant suspended").Proto().String(), requireStatus(t, codes.FailedPrecondition, err))
	require.Equal(t, []string{"note of acme", "first"}, app.Raw(t, "acme"))
}

// What is not an error of package tenancy's, or is a status already, is the
// handler's own.
func TestErrorsOfHandlers(t *testing.T) {
	behind := &tenancy.Error{Op: "query", Tenant: "acme", Err: tenancy.ErrTenantBehind, Detail: "s3cret"}
	bg := context.Background()
	_, unsent := ask(tenant.Ctx(tenant.Pin(bg, "acme"), "s3cret"), serve(t, nil)(clientOptions(tenancygrpc.Client{})...), "")
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
		text string
	}{
		"none":               {nil, codes.OK, ""},
		"tenancy's":          {behind, codes.Unavailable, "tenant is being upgraded"},
		"tenancy's, wrapped": {fmt.Errorf("orders: %w", behind), codes.Unavailable, "tenant is being upgraded"},
		"a status in a cause": {&tenancy.Error{Err: tenancy.ErrUnavailable, Cause: status.Error(codes.NotFound, "s3cret")},
			codes.Unavailable, "service unavailable"}, // a resolver that asks another service
		"by Status, and wrapped":             {fmt.Errorf("s3cret: %w", tenancygrpc.Status(behind)), codes.Unavailable, "tenant is being upgraded"},
		"a call without one tenant":          {unsent, codes.Internal, "internal error"},
		"a call without one tenant, wrapped": {fmt.Errorf("billing: %w", unsent), codes.Internal, "internal error"},
		"a status":                           {status.Error(codes.NotFound, "no such order"), codes.NotFound, "no such order"},
		"the application's":                  {errors.New("no such order"), codes.Unknown, "no such order"},
	} {
		for kind, call := range methods {
			t.Run(name+"/"+kind, func(t *testing.T) {
				dial := serve(t, func(context.Context, string) (string, error) { return "", tc.err },
					serverOptions(newServer(t, tenancygrpc.Config{}))...)
				_, err := call(naming("acme"), dial(), "")
				require.Equal(t, tc.code, status.Code(err))
				require.Equal(t, tc.text, status.Convert(err).Message())
			})
		}
	}
}

// The interceptors among others: what authenticates comes before, and what comes
// after has the tenant.
func TestChained(t *testing.T) {
	type user struct{}
	s := newServer(t, tenancygrpc.Config{Authorize: func(ctx context.Context, _, id string) error {
		if ctx.Value(user{}) != "of "+id {
			return tenancygrpc.ErrForbidden
		}
		return nil
	}})
	var after string
	dial := serve(t, func(context.Context, string) (string, error) { return "", nil },
		grpc.ChainUnaryInterceptor(
			func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				return handle(context.WithValue(ctx, user{}, "of acme"), req)
			},
			s.Unary,
			func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				after, _ = tenant.ID(ctx)
				return handle(ctx, req)
			}))
	conn := dial(clientOptions(tenancygrpc.Client{})...)
	_, err := ask(tenant.Ctx(context.Background(), "bravo"), conn, "")
	requireStatus(t, codes.NotFound, err)
	require.Empty(t, after)
	_, err = ask(tenant.Ctx(context.Background(), "acme"), conn, "")
	require.NoError(t, err)
	require.Equal(t, "acme", after)
}

// gRPC's own health service, public on both sides.
func TestHealth(t *testing.T) {
	public := func(method string) bool {
		return method == healthpb.Health_Check_FullMethodName || method == healthpb.Health_Watch_FullMethodName
	}
	for name, tc := range map[string]struct {
		cfg  tenancygrpc.Config
		code codes.Code
	}{
		"public":     {tenancygrpc.Config{Public: public}, codes.OK},
		"not public": {tenancygrpc.Config{}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			dial := serve(t, nil, serverOptions(newServer(t, tc.cfg))...)
			client := healthpb.NewHealthClient(dial(clientOptions(tenancygrpc.Client{Public: public})...))
			_, err := client.Check(context.Background(), &healthpb.HealthCheckRequest{})
			require.Equal(t, tc.code, status.Code(err), "%v", err)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
			require.NoError(t, err)
			_, err = watch.Recv()
			require.Equal(t, tc.code, status.Code(err), "%v", err)
		})
	}
}
