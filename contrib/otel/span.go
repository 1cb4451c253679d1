package tenancyotel

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// NewSpanProcessor returns a processor that puts the tenant on each span that
// begins under a context that names one, whoever begins it: instrumentation of
// GORM, of database/sql, of an HTTP client, the application itself. The
// attribute is [TenantKey], and tenancyslog calls tenants the same. A context
// that names no tenant, an invalid one, or another than it is pinned to adds
// nothing.
//
// It says for whom the work is, and not where: a main model's statement has the
// tenant of its context.
//
// A sampler decides before that, so it can't go by the tenant.
func NewSpanProcessor() sdktrace.SpanProcessor { return processor{} }

type processor struct{}

func (processor) OnStart(parent context.Context, s sdktrace.ReadWriteSpan) {
	if attr, ok := of(parent); ok {
		s.SetAttributes(attr)
	}
}

func (processor) OnEnd(sdktrace.ReadOnlySpan)      {}
func (processor) Shutdown(context.Context) error   { return nil }
func (processor) ForceFlush(context.Context) error { return nil }

// Annotate puts the tenant of ctx on the span of ctx, as [NewSpanProcessor]
// does: for a span that began before the tenant was known.
func Annotate(ctx context.Context) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	if attr, ok := of(ctx); ok {
		span.SetAttributes(attr)
	}
}

// Middleware calls [Annotate] for each request. It goes right behind
// tenancyhttp, so that the server's span, which began in front of that, has the
// tenant.
func Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Annotate(r.Context())
		next.ServeHTTP(w, r)
	})
}

func of(ctx context.Context) (attribute.KeyValue, bool) {
	name := scope.From(ctx).Name()
	return TenantKey.String(name), name != ""
}
