package tenancygrpc_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/gorm-tenancy/tenancy"
	tenancygrpc "github.com/gorm-tenancy/tenancy/contrib/grpc"
	"github.com/gorm-tenancy/tenancy/internal/notes"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestNewServerRefuses(t *testing.T) {
	s, err := tenancygrpc.NewServer(tenancygrpc.Config{})
	require.ErrorContains(t, err, "tenancygrpc: Config.Authorize is not set")
	require.Nil(t, s)
}

// What is refused reaches no handler, in either kind of method.
func TestRefused(t *testing.T) {
	app := notes.New(t, "acme", "bravo")
	open := tenancygrpc.Config{Check: app.Plugin.Check}
	with := func(authorize func(context.Context, string, string) error) tenancygrpc.Config {
		return tenancygrpc.Config{Authorize: authorize, Check: app.Plugin.Check}
	}
	answers := func(err error) tenancygrpc.Config {
		return with(func(context.Context, string, string) error { return err })
	}
	forbidden := fmt.Errorf("%w: s3cret", tenancygrpc.ErrForbidden)
	errHook := fmt.Errorf("s3cret: %w", status.Error(codes.OutOfRange, "s3cret")) // of a service that it asks
	errSignIn := status.Error(codes.Unauthenticated, "sign in")
	const main = "_main"
	for name, tc := range map[string]struct {
		cfg    tenancygrpc.Config
		ctx    context.Context
		code   codes.Code
		reason error
	}{
		"missing":          {open, naming(), codes.InvalidArgument, tenancy.ErrNoTenant},
		"empty":            {open, naming(""), codes.InvalidArgument, tenancy.ErrNoTenant},
		"a binary key":     {open, metadata.AppendToOutgoingContext(naming(), tenant.CarrierKey+"-bin", "acme"), codes.InvalidArgument, tenancy.ErrNoTenant},
		"invalid":          {open, naming("a/b"), codes.InvalidArgument, tenancy.ErrInvalidTenant},
		"a list":           {open, naming("acme,bravo"), codes.InvalidArgument, tenancy.ErrInvalidTenant},
		"twice":            {open, naming("acme", "bravo"), codes.InvalidArgument, tenancy.ErrInvalidTenant},
		"twice the same":   {open, naming("acme", "acme"), codes.InvalidArgument, tenancy.ErrInvalidTenant},
		"twice, one empty": {open, naming("", "acme"), codes.InvalidArgument, tenancy.ErrInvalidTenant},
		"in two spellings": {open, metadata.AppendToOutgoingContext(naming("acme"), "Tenancy-Tenant", "bravo"), codes.InvalidArgument, tenancy.ErrInvalidTenant},
		"main":             {open, naming(main), codes.InvalidArgument, tenant.ErrMain},
		"main is forbidden": {tenancygrpc.Config{Main: func(context.Context, string) error { return forbidden }}, naming(main),
			codes.NotFound, tenancygrpc.ErrForbidden},
		"unknown":       {open, naming("nobody"), codes.NotFound, tenancy.ErrTenantNotFound},
		"forbidden":     {answers(forbidden), naming("acme"), codes.NotFound, tenancygrpc.ErrForbidden},
		"not signed in": {answers(errSignIn), naming("acme"), codes.Unauthenticated, errSignIn},
		"a hook that fails": {answers(errHook), naming("acme"),
			codes.Internal, errHook},
		"suspended": {open, naming("closed"), codes.FailedPrecondition, tenancy.ErrTenantSuspended},
		"behind":    {open, naming("old"), codes.Unavailable, tenancy.ErrTenantBehind},
	} {
		for kind, call := range methods {
			t.Run(name+"/"+kind, func(t *testing.T) {
				s := newServer(t, tc.cfg)
				reached := false
				seen := make(chan error, 1) // by an interceptor in front
				dial := serve(t, func(context.Context, string) (string, error) { reached = true; return "", nil },
					grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
						res, err := s.Unary(ctx, req, info, h)
						seen <- err
						return res, err
					}),
					grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
						err := s.Stream(srv, stream, info, h)
						seen <- err
						return err
					}))
				_, err := call(tc.ctx, dial(), "")
				require.NotContains(t, requireStatus(t, tc.code, err), "s3cret")
				inside := <-seen
				require.False(t, reached)
				require.NotContains(t, inside.Error(), "s3cret", "an interceptor may wrap it")
				require.ErrorIs(t, inside, tc.reason)
			})
		}
	}
}

// Who may not use a tenant gets what anybody gets for one that isn't there.
func TestARefusalLooksLikeAnUnknownTenant(t *testing.T) {
	app := notes.New(t, "acme")
	dial := serve(t, func(context.Context, string) (string, error) { return "", nil },
		serverOptions(newServer(t, tenancygrpc.Config{Check: app.Plugin.Check,
			Authorize: func(_ context.Context, _, id string) error {
				if id != "nobody" {
					return fmt.Errorf("%w: %w", tenancy.ErrTenantSuspended, tenancygrpc.ErrForbidden)
				}
				return nil
			}}))...)
	for _, call := range methods {
		_, err := call(naming("nobody"), dial(), "")
		unknown := requireStatus(t, codes.NotFound, err)
		_, err = call(naming("acme"), dial(), "")
		require.Equal(t, unknown, requireStatus(t, codes.NotFound, err))
	}
}

// A context that means another tenant before the interceptor is refused, whatever
// the metadata says, and nobody is asked.
func TestAnotherTenantInTheContext(t *testing.T) {
	bg := context.Background()
	for name, tc := range map[string]struct {
		before context.Context
		names  string
		code   codes.Code
	}{
		"pinned":          {tenant.Pin(bg, "bravo"), "acme", codes.NotFound},
		"not pinned":      {tenant.Ctx(bg, "bravo"), "acme", codes.NotFound},
		"behind main":     {tenant.Main(tenant.Pin(bg, "bravo")), "acme", codes.NotFound},
		"a conflict":      {tenant.Ctx(tenant.Pin(bg, "acme"), "bravo"), "acme", codes.NotFound},
		"main is named":   {tenant.Pin(bg, "bravo"), "_main", codes.NotFound},
		"none is named":   {tenant.Pin(bg, "bravo"), "", codes.InvalidArgument},
		"the same":        {tenant.Pin(bg, "acme"), "acme", codes.OK},
		"main before":     {tenant.Main(bg), "acme", codes.OK},
		"main, and named": {tenant.Main(bg), "_main", codes.OK},
		"an invalid one":  {tenant.Ctx(bg, "no/id"), "acme", codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			asked := false
			s := newServer(t, tenancygrpc.Config{
				Authorize: func(context.Context, string, string) error { asked = true; return nil },
				Main:      func(context.Context, string) error { asked = true; return nil }})
			ctx := metadata.NewIncomingContext(tc.before, metadata.Pairs(tenant.CarrierKey, tc.names))
			reached := false
			_, err := s.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: askMethod}, func(context.Context, any) (any, error) {
				reached = true
				return nil, nil
			})
			require.Equal(t, tc.code, status.Code(err), "%v", err)
			require.Equal(t, tc.code == codes.OK, reached)
			require.Equal(t, tc.code == codes.OK, asked)
		})
	}
}

func TestAuthorize(t *testing.T) {
	app := notes.New(t, "acme")
	type question struct{ method, id string }
	var asked []question
	checked := 0
	s := newServer(t, tenancygrpc.Config{
		Authorize: func(ctx context.Context, method, id string) error {
			_, named := tenant.ID(ctx)
			require.False(t, named, "it is the context as it came")
			p, ok := peer.FromContext(ctx)
			require.True(t, ok)
			require.Equal(t, "bufconn", p.Addr.String())
			require.Zero(t, checked, "nobody is asked before")
			asked = append(asked, question{method, id})
			return nil
		},
		Check: func(ctx context.Context, id string) error {
			checked++
			in, _ := tenant.ID(ctx)
			require.Equal(t, id, in)
			return app.Plugin.Check(ctx, id)
		},
	})
	dial := serve(t, func(ctx context.Context, _ string) (string, error) { return app.First(ctx) }, serverOptions(s)...)
	for kind, call := range methods {
		asked, checked = nil, 0
		got, err := call(tenant.Ctx(context.Background(), "acme"), dial(clientOptions(tenancygrpc.Client{})...), "")
		require.NoError(t, err)
		require.Equal(t, "note of acme", got)
		require.Equal(t, []question{{map[string]string{"unary": askMethod, "stream": chatMethod}[kind], "acme"}}, asked)
		require.Equal(t, 1, checked)
	}
}

func TestPublic(t *testing.T) {
	public := func(method string) bool { return method == askMethod }
	dial := serve(t, func(ctx context.Context, _ string) (string, error) {
		id, _ := tenant.ID(ctx)
		return fmt.Sprintf("%q", id), nil
	}, serverOptions(newServer(t, tenancygrpc.Config{Public: public,
		Check: func(_ context.Context, id string) error {
			if id != "acme" {
				return tenancy.ErrTenantNotFound
			}
			return nil
		}}))...)
	conn := dial()
	got, err := ask(naming(), conn, "")
	require.NoError(t, err)
	require.Equal(t, `""`, got)
	_, err = chat(naming(), conn, "")
	requireStatus(t, codes.InvalidArgument, err)
	// A call that names a tenant is like any other.
	got, err = ask(naming("acme"), conn, "")
	require.NoError(t, err)
	require.Equal(t, `"acme"`, got)
	_, err = ask(naming("nobody"), conn, "")
	requireStatus(t, codes.NotFound, err)
	_, err = ask(naming("a/b"), conn, "")
	requireStatus(t, codes.InvalidArgument, err)
	_, err = ask(naming("_main"), conn, "")
	requireStatus(t, codes.InvalidArgument, err)
}

// A call for the main database gets there only where the server says so.
func TestTheMainDatabase(t *testing.T) {
	app := notes.New(t, "acme")
	require.NoError(t, app.DB.WithContext(tenant.Main(context.Background())).AutoMigrate(&notes.Note{}))
	require.NoError(t, app.Add(tenant.Main(context.Background()), "note of main"))
	var methods []string
	dial := serve(t, func(ctx context.Context, _ string) (string, error) { return app.First(ctx) },
		serverOptions(newServer(t, tenancygrpc.Config{
			Authorize: func(context.Context, string, string) error { return tenancygrpc.ErrForbidden },
			Main: func(_ context.Context, method string) error {
				methods = append(methods, method)
				return nil
			}}))...)
	conn := dial(clientOptions(tenancygrpc.Client{})...)
	got, err := ask(tenant.Main(context.Background()), conn, "")
	require.NoError(t, err)
	require.Equal(t, "note of main", got)
	require.Equal(t, []string{askMethod}, methods)
	_, err = ask(tenant.Ctx(context.Background(), "acme"), conn, "")
	requireStatus(t, codes.NotFound, err)
}
