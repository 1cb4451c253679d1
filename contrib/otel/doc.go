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
// as an attribute: each tenant would cost as many series as a server. Spans do,
// so whoever reads traces learns the ids of tenants.
package tenancyotel
