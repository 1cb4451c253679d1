package tenancyslog_test

import (
	"context"
	"log/slog"
	"os"

	"github.com/gorm-tenancy/tenancy/tenancyslog"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func Example() {
	slog.SetDefault(slog.New(tenancyslog.NewHandler(slog.NewJSONHandler(os.Stderr, nil), nil)))

	ctx := tenant.Ctx(context.Background(), "acme")
	slog.InfoContext(ctx, "invoice sent", "cents", 4200)
	// {..., "msg":"invoice sent","cents":4200,"tenant":"acme"}
}

// Each line says whose it is, in the same place, groups or not.
func ExampleNewHandler() {
	log := slog.New(tenancyslog.NewHandler(
		slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: noTime}), nil))

	ctx := tenant.Ctx(context.Background(), "acme")
	log.InfoContext(ctx, "invoice sent", "cents", 4200)
	log.WithGroup("mail").InfoContext(ctx, "delivered", "to", "a@example.org")
	log.InfoContext(context.Background(), "started")
	// Output:
	// {"msg":"invoice sent","cents":4200,"tenant":"acme"}
	// {"msg":"delivered","mail":{"to":"a@example.org"},"tenant":"acme"}
	// {"msg":"started"}
}
