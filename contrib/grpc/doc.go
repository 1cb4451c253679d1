// Package tenancygrpc carries the tenant from one gRPC service to the next: the
// client's interceptors write the tenant of the context into the metadata of the
// call, by tenant.Inject, and the server's pin the context of the call to it.
//
//	tenants, err := tenancygrpc.NewServer(tenancygrpc.Config{
//		Authorize: mayUse, // func(ctx context.Context, fullMethod, id string) error
//		Check:     plugin.Check,
//	})
//	...
//	server := grpc.NewServer(
//		grpc.Creds(mutualTLS),
//		grpc.ChainUnaryInterceptor(authenticate, tenants.Unary),
//		grpc.ChainStreamInterceptor(authenticateStream, tenants.Stream),
//	)
//
//	var names tenancygrpc.Client
//	conn, err := grpc.NewClient(target,
//		grpc.WithTransportCredentials(mutualTLS),
//		grpc.WithChainUnaryInterceptor(names.Unary),
//		grpc.WithChainStreamInterceptor(names.Stream),
//	)
//
// Handlers give their context to GORM, db.WithContext(ctx) or
// db.WithContext(stream.Context()), and may return the errors of statements as they
// are: see [Status].
//
// # Who may write the metadata
//
// Who can write the key [tenant.CarrierKey] chooses the tenant. A server believes
// it of every caller that Config.Authorize lets pass, so the callers have to be
// known: services under mutual TLS, whose certificate Authorize finds by
// peer.FromContext, or those whose token an interceptor in front has verified. A
// proxy that lets calls in from outside must take the key away: grpc-gateway makes
// it of a client's header Grpc-Metadata-Tenancy-Tenant, unless its
// WithIncomingHeaderMatcher refuses that, or its calls are those of a [Client].
// Where clients are users, let Authorize ask whether the user of the token is a
// member of the tenant.
//
// A service that calls another one without the client's interceptors, and passes
// the incoming metadata on, passes on its caller's word, which it may not have
// checked itself.
package tenancygrpc
