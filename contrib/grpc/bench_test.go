package tenancygrpc_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	tenancygrpc "github.com/gorm-tenancy/tenancy/contrib/grpc"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// BenchmarkCall is a call within the process whose handler does nothing, without
// and with the interceptors of both sides.
func BenchmarkCall(b *testing.B) {
	for _, kind := range []string{"plain", "tenancy"} {
		b.Run(kind, func(b *testing.B) {
			var server []grpc.ServerOption
			var client []grpc.DialOption
			if kind == "tenancy" {
				server = serverOptions(newServer(b, tenancygrpc.Config{Check: func(context.Context, string) error { return nil }}))
				client = clientOptions(tenancygrpc.Client{})
			}
			conn := serve(b, func(context.Context, string) (string, error) { return "", nil }, server...)(client...)
			ctx := tenant.Ctx(context.Background(), "acme")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ask(ctx, conn, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
