// Package tenancyotel exports a plugin's figures through OpenTelemetry, and
// adds the tenant to spans.
//
//	tracing := sdktrace.NewTracerProvider(
//		sdktrace.WithSpanProcessor(tenancyotel.NewSpanProcessor()),
//		sdktrace.WithBatcher(exporter),
//	)
//	registration, err := tenancyotel.Metrics(plugin, tenancyotel.Options{MeterProvider: metering})
//	handler = otelhttp.NewHandler(tenant(tenancyotel.Middleware(mux)), "app") // tenant is tenancyhttp's
//
// docs/observability.md says what each metric means. No metric has the tenant
// as an attribute: there may be thousands, and each would cost series of its
// own. Spans have it, so whoever reads traces learns the ids of tenants.
package tenancyotel
