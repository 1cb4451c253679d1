package tenancygrpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gorm-tenancy/tenancy/tenant"
)

// Client has the interceptors of a client, which name the tenant of the context to
// the server. The zero value is useful. A client with streaming methods needs both.
//
// The key takes the place of one that the outgoing metadata has already, of what
// is passed on from a caller for instance. The metadata itself is not changed, but
// a copy.
//
// A context without a tenant is an error, and so is one with an invalid id, or
// that was asked for another tenant than it is pinned to. Nothing is sent then. The
// errors are those of [tenant.Inject], with codes.Internal: the mistake is in this
// process, and the other codes are left to what servers answer, as in gRFC A54.
//
// tenant.Main is named to the server too, which refuses it unless Config.Main is set.
type Client struct {
	// Public reports whether fullMethod, "/package.Service/Method", may be called
	// without a tenant. With one in the context it is named nevertheless. Defaults
	// to none.
	Public func(fullMethod string) bool
}

// Unary is a grpc.UnaryClientInterceptor.
func (c Client) Unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, err := c.naming(ctx, method)
	if err != nil {
		return err
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// Stream is a grpc.StreamClientInterceptor.
func (c Client) Stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := c.naming(ctx, method)
	if err != nil {
		return nil, err
	}
	return open(ctx, desc, cc, method, opts...)
}

// naming returns the context whose outgoing metadata names its tenant.
func (c Client) naming(ctx context.Context, method string) (context.Context, error) {
	md, ok := metadata.FromOutgoingContext(ctx) // a copy, with keys in lower case
	if !ok {
		md = metadata.MD{}
	}
	switch err := tenant.Inject(ctx, carrier(md)); {
	case errors.Is(err, tenant.ErrMissing) && c.Public != nil && c.Public(method):
		delete(md, tenant.CarrierKey)
	case err != nil:
		return nil, &statusError{
			status: status.New(codes.Internal, "internal error"),
			text:   "tenancygrpc: " + method + ": " + err.Error(),
			cause:  err,
		}
	}
	return metadata.NewOutgoingContext(ctx, md), nil
}

// carrier is metadata, whose keys are in lower case, as a tenant.Carrier.
type carrier metadata.MD

func (c carrier) Get(key string) string {
	if values := c[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func (c carrier) Set(key, value string) { c[key] = []string{value} }

func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}
