package tenancygrpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// ErrForbidden is returned by a Config.Authorize or Config.Main that refuses. It
// is that of package tenancyhttp, for services that have both.
var ErrForbidden = tenancyhttp.ErrForbidden

// Config says who may call for which tenant.
type Config struct {
	// Authorize says whether the caller may use the tenant id, which is valid but
	// may not exist. It is asked before Check and before the handler, with the
	// context as it came, which has no tenant yet: the caller is found by
	// peer.FromContext, or by what an interceptor in front has put there.
	// fullMethod is "/package.Service/Method".
	//
	// It returns nil to allow and [ErrForbidden], wrapped or not, to refuse. An
	// error of package status, codes.Unauthenticated for instance, is returned to
	// the caller as it is, any other as codes.Internal.
	//
	// Required. Set [Anyone] where every caller may use every tenant.
	Authorize func(ctx context.Context, fullMethod, id string) error
	// Check says whether the tenant is served, before the handler begins: nil, or
	// an error that is [tenancy.ErrTenantNotFound], [tenancy.ErrTenantSuspended],
	// [tenancy.ErrTenantBehind] or another one. The plugin's
	// [tenancy.Plugin.Check] is one. Its context means the tenant.
	//
	// Defaults to none: the handler's first statement fails then, with the same
	// status.
	Check func(ctx context.Context, id string) error
	// Public reports whether a call that names no tenant is served without one: a
	// health check, reflection. A call that names one is treated like any other.
	// Defaults to none.
	Public func(fullMethod string) bool
	// Main says whether the caller may have the call work in the main database,
	// as one asks whose context is of tenant.Main. What Authorize may return it may
	// return too. Defaults to refusing.
	Main func(ctx context.Context, fullMethod string) error
}

// Anyone is a Config.Authorize that allows everything: for services whose callers
// are all trusted to name any tenant.
func Anyone(context.Context, string, string) error { return nil }

// Server has the interceptors of a server. A server with streaming methods needs
// both. They come after the one that authenticates.
type Server struct{ cfg Config }

// NewServer returns the interceptors of cfg. They may be used by several servers.
//
// A call is looked at in this order, and the first refusal ends it:
//
//  1. the metadata says which tenant is named ([tenancy.ErrNoTenant] if none:
//     Config.Public methods pass then, without a tenant);
//  2. [tenant.Validate]; a second value of the key is refused, too;
//  3. a context that means another tenant already is refused;
//  4. Config.Authorize says whether the caller may use the tenant;
//  5. Config.Check says whether the tenant is served.
//
// For a call that means the main database, Config.Main takes the place of the last
// two. See [Status] for what the caller gets.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Authorize == nil {
		return nil, errors.New("tenancygrpc: Config.Authorize is not set; set a function that says whether the caller may use the tenant, or Anyone if all may")
	}
	return &Server{cfg}, nil
}

// Unary is a grpc.UnaryServerInterceptor.
func (s *Server) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	res, err := handle(ctx, req)
	return res, mapped(err)
}

// Stream is a grpc.StreamServerInterceptor. The tenant is looked at when the stream
// begins; when it is suspended later, the handler's next statement is refused.
func (s *Server) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	ctx, err := s.admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return mapped(handle(srv, &tenantStream{stream, ctx}))
}

// tenantStream is a stream whose context has the tenant.
type tenantStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *tenantStream) Context() context.Context { return s.ctx }

// admit returns the context that the handler gets, or a status.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	md := carrier{tenant.CarrierKey: metadata.ValueFromIncomingContext(ctx, tenant.CarrierKey)}
	id := md.Get(tenant.CarrierKey)
	if n := len(md[tenant.CarrierKey]); n > 1 {
		return nil, refused(id, fmt.Errorf("%w: the metadata has %d values of %s", tenancy.ErrInvalidTenant, n, tenant.CarrierKey))
	}
	pinned, err := tenant.Extract(ctx, md)
	switch {
	case errors.Is(err, tenancy.ErrNoTenant) && s.cfg.Public != nil && s.cfg.Public(method):
		return ctx, nil
	case errors.Is(err, tenant.ErrMain):
		return s.admitMain(ctx, method)
	case errors.Is(err, tenancy.ErrTenantMismatch), err == nil && another(ctx, id):
		return nil, conflict(id)
	case err != nil:
		return nil, refused(id, err)
	}
	if err := s.cfg.Authorize(ctx, method, id); err != nil {
		return nil, refused(id, err)
	}
	if s.cfg.Check != nil {
		if err := s.cfg.Check(pinned, id); err != nil {
			return nil, refused(id, err)
		}
	}
	return pinned, nil
}

func (s *Server) admitMain(ctx context.Context, method string) (context.Context, error) {
	switch {
	case s.cfg.Main == nil:
		return nil, refused("", &tenancy.Error{Op: "grpc", Err: tenancy.ErrNoTenant, Cause: tenant.ErrMain,
			Hint: "set Config.Main if callers may work in it"})
	case another(ctx, ""):
		return nil, conflict("")
	}
	if err := s.cfg.Main(ctx, method); err != nil {
		return nil, refused("", err)
	}
	return tenant.Main(ctx), nil
}

// another reports whether ctx means another tenant than id, an earlier
// interceptor's for instance: who is right must not be settled by their order.
func another(ctx context.Context, id string) bool {
	before, named := tenant.ID(ctx)
	return named && before != id
}

func conflict(id string) error {
	return refused(id, &tenancy.Error{Op: "grpc", Tenant: id, Err: tenancy.ErrTenantMismatch, Cause: ErrForbidden,
		Detail: "the call's context means another tenant already"})
}
