package tenancygrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	tenancygrpc "github.com/gorm-tenancy/tenancy/contrib/grpc"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type text = wrapperspb.StringValue

const (
	askMethod  = "/tenancy.Test/Ask"
	chatMethod = "/tenancy.Test/Chat"
)

// handler is what both methods of the service do with a text.
type handler func(ctx context.Context, in string) (out string, err error)

// service is the service without protoc: Ask answers one text, and Chat, a stream
// of both sides, each that it gets.
var service = grpc.ServiceDesc{
	ServiceName: "tenancy.Test",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Ask",
		Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(text)
			if err := decode(in); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, req any) (any, error) {
				out, err := srv.(handler)(ctx, req.(*text).Value)
				return wrapperspb.String(out), err
			}
			if intercept == nil {
				return handle(ctx, in)
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: askMethod}, handle)
		},
	}},
	Streams: []grpc.StreamDesc{{
		StreamName: "Chat", ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error {
			for {
				in := new(text)
				if err := stream.RecvMsg(in); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				out, err := srv.(handler)(stream.Context(), in.Value)
				if err != nil {
					return err
				}
				if err := stream.SendMsg(wrapperspb.String(out)); err != nil {
					return err
				}
			}
		},
	}},
}

// serverOptions and clientOptions install the interceptors of both kinds of methods.
func serverOptions(s *tenancygrpc.Server) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(s.Unary), grpc.ChainStreamInterceptor(s.Stream)}
}

func clientOptions(c tenancygrpc.Client) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(c.Unary), grpc.WithChainStreamInterceptor(c.Stream)}
}

func newServer(t testing.TB, cfg tenancygrpc.Config) *tenancygrpc.Server {
	t.Helper()
	if cfg.Authorize == nil {
		cfg.Authorize = tenancygrpc.Anyone
	}
	s, err := tenancygrpc.NewServer(cfg)
	require.NoError(t, err)
	return s
}

// serve serves h, and gRPC's health service, in this process until the test ends.
// It returns how it is dialled.
func serve(t testing.TB, h handler, opts ...grpc.ServerOption) func(opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(opts...)
	server.RegisterService(&service, h)
	healthpb.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})
	return func(opts ...grpc.DialOption) *grpc.ClientConn {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:///bufconn", append(opts,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		return conn
	}
}

// ask and chat call the two methods with one text.
func ask(ctx context.Context, conn *grpc.ClientConn, in string) (string, error) {
	out := new(text)
	err := conn.Invoke(ctx, askMethod, wrapperspb.String(in), out)
	return out.Value, err
}

func chat(ctx context.Context, conn *grpc.ClientConn, in string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &service.Streams[0], chatMethod)
	if err != nil {
		return "", err
	}
	return say(stream, in)
}

// say sends a text through a stream and returns the answer.
func say(stream grpc.ClientStream, in string) (string, error) {
	out := new(text)
	if err := stream.SendMsg(wrapperspb.String(in)); err != nil && !errors.Is(err, io.EOF) { // RecvMsg says why
		return "", err
	}
	err := stream.RecvMsg(out)
	return out.Value, err
}

var methods = map[string]func(context.Context, *grpc.ClientConn, string) (string, error){"unary": ask, "stream": chat}

// naming is a context whose outgoing metadata names tenants without an interceptor.
func naming(ids ...string) context.Context {
	ctx := context.Background()
	for _, id := range ids {
		ctx = metadata.AppendToOutgoingContext(ctx, tenant.CarrierKey, id)
	}
	return ctx
}

// requireStatus requires a status of the code and returns all that a client sees.
func requireStatus(t testing.TB, code codes.Code, err error) string {
	t.Helper()
	st, ok := status.FromError(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, st.Code(), "%v", err)
	return st.Proto().String()
}
