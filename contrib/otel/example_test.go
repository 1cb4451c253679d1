package tenancyotel_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/gorm-tenancy/tenancy"
	tenancyotel "github.com/gorm-tenancy/tenancy/contrib/otel"
	"github.com/gorm-tenancy/tenancy/tenancyhttp"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func Example() {
	ctx := context.Background()
	reader := metric.NewManualReader()
	metering := metric.NewMeterProvider(metric.WithReader(reader))
	defer metering.Shutdown(ctx)
	if err := measure(metering, tenancy.Static{}); err != nil {
		log.Fatal(err)
	}
	var out metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &out); err != nil {
		log.Fatal(err)
	}
	for _, m := range out.ScopeMetrics[0].Metrics {
		if m.Name == "tenancy.pool.max" {
			fmt.Println(m.Name, m.Data.(metricdata.Sum[int64]).DataPoints[0].Value, m.Unit)
		}
	}
	// Output: tenancy.pool.max 1000 {pool}
}

func measure(metering *metric.MeterProvider, resolver tenancy.Resolver) error {
	observer, err := tenancyotel.NewObserver(tenancyotel.Options{MeterProvider: metering})
	if err != nil {
		return err
	}
	plugin := tenancy.New(tenancy.Config{
		Resolver: resolver,
		Engine:   tenancysqlite.Engine{},
		Observer: observer,
	})
	registration, err := tenancyotel.Metrics(plugin, tenancyotel.Options{MeterProvider: metering})
	if err != nil {
		return err
	}
	_ = registration // its Unregister ends it
	return nil
}

// Each span that begins under a tenant's context says so.
func ExampleNewSpanProcessor() {
	ctx := context.Background()
	exporter := tracetest.NewInMemoryExporter()
	tracing := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(tenancyotel.NewSpanProcessor()),
		sdktrace.WithBatcher(exporter),
	)
	defer tracing.Shutdown(ctx)

	_, span := tracing.Tracer("app").Start(tenant.Ctx(ctx, "acme"), "send invoice")
	span.End()
	if err := tracing.ForceFlush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(exporter.GetSpans()[0].Attributes[0].Key, exporter.GetSpans()[0].Attributes[0].Value.AsString())
	// Output: tenancy.tenant acme
}

// The server's span begins before anybody knows the tenant.
func ExampleMiddleware() {
	exporter := tracetest.NewInMemoryExporter()
	tracing := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	defer tracing.Shutdown(context.Background())
	instrumented := func(next http.Handler) http.Handler { // by otelhttp, in an application
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, span := tracing.Tracer("app").Start(r.Context(), r.Method)
			defer span.End()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
	tenants, err := tenancyhttp.New(tenancyhttp.Config{
		Source:    tenancyhttp.Subdomain("example.com"),
		Authorize: tenancyhttp.Anyone,
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()

	handler := instrumented(tenants(tenancyotel.Middleware(mux)))

	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://acme.example.com/", nil))
	fmt.Println(exporter.GetSpans()[0].Attributes[0].Value.AsString())
	// Output: acme
}
