package tenancygrpc_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/gorm-tenancy/tenancy"
	tenancygrpc "github.com/gorm-tenancy/tenancy/contrib/grpc"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func Example() {
	// The server.
	tenants, err := tenancygrpc.NewServer(tenancygrpc.Config{
		Authorize: tenancygrpc.Anyone,                                             // its callers are known by mutual TLS
		Check:     tenancyhttp.Resolves(tenancy.Static{"acme": {DSN: "acme.db"}}), // with a db, plugin.Check
		Public:    func(fullMethod string) bool { return strings.HasPrefix(fullMethod, "/grpc.health.v1.") },
	})
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(tenants.Unary), grpc.ChainStreamInterceptor(tenants.Stream))
	server.RegisterService(&service, handler(func(ctx context.Context, in string) (string, error) {
		id, _ := tenant.ID(ctx) // what db.WithContext is given
		return in + " of " + id, nil
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	// The client.
	var names tenancygrpc.Client
	conn, err := grpc.NewClient(listener.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(names.Unary),
		grpc.WithChainStreamInterceptor(names.Stream))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, id := range []string{"acme", "bravo"} {
		out, err := ask(tenant.Ctx(context.Background(), id), conn, "orders")
		fmt.Printf("%s %q\n", status.Code(err), out)
	}
	_, err = ask(context.Background(), conn, "orders")
	fmt.Println(err)
	// Output:
	// OK "orders of acme"
	// NotFound ""
	// tenancygrpc: /tenancy.Test/Ask: tenant: inject: no tenant in the context; put it there with tenant.Ctx, or mean the main database with tenant.Main
}
