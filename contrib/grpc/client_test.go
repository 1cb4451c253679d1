package tenancygrpc_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gorm-tenancy/tenancy"
	tenancygrpc "github.com/gorm-tenancy/tenancy/contrib/grpc"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Nothing is sent without a tenant, or for two.
func TestClientRefuses(t *testing.T) {
	bg := context.Background()
	reached := false
	dial := serve(t, func(context.Context, string) (string, error) { reached = true; return "", nil })
	public := tenancygrpc.Client{Public: func(string) bool { return true }}
	for name, tc := range map[string]struct {
		client tenancygrpc.Client
		ctx    context.Context
		reason error
	}{
		"none":              {tenancygrpc.Client{}, bg, tenancy.ErrNoTenant},
		"in metadata only":  {tenancygrpc.Client{}, naming("acme"), tenancy.ErrNoTenant},
		"empty":             {tenancygrpc.Client{}, tenant.Ctx(bg, ""), tenancy.ErrNoTenant},
		"invalid":           {public, tenant.Ctx(bg, "a/b"), tenancy.ErrInvalidTenant},
		"a conflict":        {public, tenant.Ctx(tenant.Pin(bg, "acme"), "s3cret"), tenancy.ErrTenantMismatch},
		"of another method": {tenancygrpc.Client{Public: func(m string) bool { return m == "/grpc.health.v1.Health/Check" }}, bg, tenancy.ErrNoTenant},
	} {
		for kind, call := range methods {
			t.Run(name+"/"+kind, func(t *testing.T) {
				_, err := call(tc.ctx, dial(clientOptions(tc.client)...), "")
				require.NotContains(t, requireStatus(t, codes.Internal, err), "s3cret", "a handler may pass it on")
				require.ErrorIs(t, err, tc.reason)
				require.ErrorContains(t, err, "tenancygrpc: /tenancy.Test/")
				require.False(t, reached)
			})
		}
	}
}

// What the server gets: the tenant of the context, and of what the outgoing
// metadata had before, all but the key.
func TestClientNames(t *testing.T) {
	bg := context.Background()
	got := make(chan metadata.MD, 1)
	dial := serve(t, func(ctx context.Context, _ string) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		got <- md
		return "", nil
	})
	client := tenancygrpc.Client{Public: func(method string) bool { return true }}
	before := metadata.MD{"Tenancy-Tenant": {"bravo"}, "x-request": {"7"}}
	for name, tc := range map[string]struct {
		ctx  context.Context
		want []string
	}{
		"a tenant":              {tenant.Ctx(bg, "acme"), []string{"acme"}},
		"pinned":                {tenant.Pin(bg, "acme"), []string{"acme"}},
		"main":                  {tenant.Main(bg), []string{"_main"}},
		"none, on a public one": {bg, nil},
	} {
		for kind, call := range methods {
			t.Run(name+"/"+kind, func(t *testing.T) {
				conn := dial(clientOptions(client)...)
				_, err := call(tc.ctx, conn, "")
				require.NoError(t, err)
				require.Equal(t, tc.want, (<-got).Get(tenant.CarrierKey))

				ctx := metadata.NewOutgoingContext(tc.ctx, before)
				ctx = metadata.AppendToOutgoingContext(ctx, "tenancy-TENANT", "charlie", "x-request", "8")
				_, err = call(ctx, conn, "")
				require.NoError(t, err)
				md := <-got
				require.Equal(t, tc.want, md.Get(tenant.CarrierKey), "it is overwritten")
				require.Equal(t, []string{"7", "8"}, md.Get("x-request"))
				require.Equal(t, metadata.MD{"Tenancy-Tenant": {"bravo"}, "x-request": {"7"}}, before, "and not in place")
			})
		}
	}
}

// A service that passes the incoming metadata on names the tenant that it works
// for, and not the one that its caller wrote.
func TestMetadataPassedOn(t *testing.T) {
	tenants := serverOptions(newServer(t, tenancygrpc.Config{Public: func(method string) bool { return true }}))
	dialBack := serve(t, func(ctx context.Context, _ string) (string, error) {
		id, _ := tenant.ID(ctx)
		return id, nil
	}, tenants...)
	back := dialBack(clientOptions(tenancygrpc.Client{})...)
	for _, id := range []string{"acme", "bravo"} {
		dial := serve(t, func(ctx context.Context, in string) (string, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			return ask(metadata.NewOutgoingContext(tenant.Ctx(ctx, id), md), back, in)
		}) // which believes no metadata
		got, err := ask(naming("s3cret"), dial(), "")
		require.NoError(t, err)
		require.Equal(t, id, got)
	}

	// Nor does one that has no tenant name its caller's: the call is refused.
	dial := serve(t, func(ctx context.Context, in string) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		require.True(t, slices.Contains(md.Get(tenant.CarrierKey), "acme"))
		return ask(metadata.NewOutgoingContext(ctx, md), back, in)
	})
	_, err := ask(naming("acme"), dial(), "")
	require.Equal(t, codes.Internal, status.Code(err))
}
