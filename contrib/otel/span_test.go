package tenancyotel_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	tenancyotel "github.com/gorm-tenancy/tenancy/contrib/otel"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// tracing returns a tracer, and what its spans become.
func tracing(t testing.TB, opts ...sdktrace.TracerProviderOption) (trace.Tracer, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(append(opts,
		sdktrace.WithSpanProcessor(tenancyotel.NewSpanProcessor()), sdktrace.WithSpanProcessor(spans))...)
	t.Cleanup(func() { require.NoError(t, provider.Shutdown(context.Background())) })
	return provider.Tracer("test"), spans
}

// tenantOf returns the attribute, "" if there is none.
func tenantOf(s sdktrace.ReadOnlySpan) string {
	found := ""
	for _, a := range s.Attributes() {
		if a.Key == tenancyotel.TenantKey {
			found += a.Value.AsString()
		}
	}
	return found
}

func contexts() map[string]context.Context {
	ctx := context.Background()
	return map[string]context.Context{
		"":        ctx,
		"acme":    tenant.Ctx(ctx, "acme"),
		"bravo":   tenant.Pin(ctx, "bravo"),
		"_main":   tenant.Main(tenant.Pin(ctx, "acme")),
		"no id":   tenant.Ctx(ctx, ""),
		"invalid": tenant.Ctx(ctx, "a/b"),
		"mixed":   tenant.Ctx(tenant.Pin(ctx, "acme"), "bravo"),
	}
}

func TestSpanProcessor(t *testing.T) {
	tracer, spans := tracing(t)
	for name, ctx := range contexts() {
		want := name
		if name == "no id" || name == "invalid" || name == "mixed" {
			want = ""
		}
		spans.Reset()
		_, span := tracer.Start(ctx, name)
		span.End()
		require.Equal(t, want, tenantOf(spans.Ended()[0]), name)

		// A span that began without one gets it later.
		spans.Reset()
		outer, span := tracer.Start(context.Background(), name)
		tenancyotel.Annotate(trace.ContextWithSpan(ctx, trace.SpanFromContext(outer)))
		span.End()
		require.Equal(t, want, tenantOf(spans.Ended()[0]), name)
	}
	tenancyotel.Annotate(tenant.Ctx(context.Background(), "acme")) // of no span
}

// tracer is GORM instrumentation: a span around each query, as such plugins
// begin it.
type tracer struct{ trace.Tracer }

func (tracer) Name() string { return "tracer" }

func (tr tracer) Initialize(db *gorm.DB) error {
	if err := db.Callback().Query().Before("gorm:query").Register("tracer:before", func(db *gorm.DB) {
		db.Statement.Context, _ = tr.Start(db.Statement.Context, db.Statement.Table)
	}); err != nil {
		return err
	}
	return db.Callback().Query().After("gorm:query").Register("tracer:after", func(db *gorm.DB) {
		trace.SpanFromContext(db.Statement.Context).End()
	})
}

// TestStatements has statements of a real plugin traced, and a tenant that is
// not in the context but in the db or in a scope.
func TestStatements(t *testing.T) {
	tr, spans := tracing(t)
	db, _ := open(t, tenancy.Config{MainModels: []any{"plans"}}, "acme", "bravo")
	require.NoError(t, db.Use(tracer{tr}))
	require.NoError(t, db.Scopes(tenancy.Main).Exec("CREATE TABLE plans (id integer)").Error)
	for _, id := range []string{"acme", "bravo"} {
		require.NoError(t, tenancy.For(db, id).Exec("CREATE TABLE orders (id integer)").Error)
	}
	acme := tenant.Ctx(t.Context(), "acme")
	for _, c := range []struct {
		name, want string
		db         *gorm.DB
	}{
		{"context", "acme", db.WithContext(acme).Table("orders")},
		{"For", "bravo", tenancy.For(db, "bravo").Table("orders")},
		{"WithTenant", "bravo", db.Scopes(tenancy.WithTenant("bravo")).Table("orders")},
		{"Main", "_main", db.WithContext(tenant.Main(acme)).Table("plans")},
		{"a main model under a tenant", "acme", db.WithContext(acme).Table("plans")},
		{"a main model", "", db.Table("plans")},
	} {
		spans.Reset()
		var ids []int
		require.NoError(t, c.db.Select("id").Find(&ids).Error, c.name)
		require.Len(t, spans.Ended(), 1, c.name)
		require.Equal(t, c.want, tenantOf(spans.Ended()[0]), c.name)
	}
}

// TestMiddleware has the server's span begin before the tenant is known, as
// otelhttp's does.
func TestMiddleware(t *testing.T) {
	tr, spans := tracing(t)
	tenants, err := tenancyhttp.New(tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain("example.com"),
		Authorize: tenancyhttp.Anyone,
	})
	require.NoError(t, err)
	app := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	inner := tenants(tenancyotel.Middleware(app))
	server := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := tr.Start(r.Context(), "server")
		defer span.End()
		inner.ServeHTTP(w, r.WithContext(ctx))
	})
	server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://acme.example.com/", nil))
	server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://example.com/", nil))
	require.Equal(t, "acme", tenantOf(spans.Ended()[0]))
	require.Equal(t, "", tenantOf(spans.Ended()[1]))
}

// TestNotSampled has spans that nobody records: nothing is asked of them.
func TestNotSampled(t *testing.T) {
	tr, spans := tracing(t, sdktrace.WithSampler(sdktrace.NeverSample()))
	ctx, span := tr.Start(tenant.Ctx(t.Context(), "acme"), "x")
	require.Zero(t, testing.AllocsPerRun(100, func() { tenancyotel.Annotate(ctx) }))
	span.End()
	require.Empty(t, spans.Started())
}

// span is one that OnStart may ask nothing of.
type span struct{ sdktrace.ReadWriteSpan }

func (span) SetAttributes(...attribute.KeyValue) { panic("there is nothing to say") }

func TestAllocs(t *testing.T) {
	p := tenancyotel.NewSpanProcessor()
	for _, name := range []string{"", "no id", "invalid", "mixed"} {
		ctx := contexts()[name]
		require.Zero(t, testing.AllocsPerRun(100, func() { p.OnStart(ctx, span{}) }), name)
	}
}
