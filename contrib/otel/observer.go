package tenancyotel

import (
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/metric"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/figures"
)

// Observer counts what [tenancy.Plugin.Stats] has no figure of: events by their
// kind, and how long each caller waited for a connection. Callers that found
// one free are not in the histogram. It is a [tenancy.Observer]; an application
// that observes events itself calls Observe from there.
type Observer struct {
	opts   Options
	events metric.Int64Counter
	waits  metric.Float64Histogram
	kinds  map[tenancy.EventKind]metric.MeasurementOption
}

// NewObserver returns an Observer.
func NewObserver(opts Options) (*Observer, error) {
	opts.Attributes = slices.Clone(opts.Attributes)
	o := &Observer{opts: opts, kinds: make(map[tenancy.EventKind]metric.MeasurementOption)}
	meter := opts.meter()
	var err error
	if o.events, err = meter.Int64Counter("tenancy.events",
		metric.WithUnit("{event}"), metric.WithDescription("Events, by kind.")); err != nil {
		return nil, fmt.Errorf("tenancyotel: %w", err)
	}
	if o.waits, err = meter.Float64Histogram("tenancy.server.wait.duration",
		metric.WithUnit("s"), metric.WithDescription("How long a caller that had to wait for a connection waited, in vain or not."),
		metric.WithExplicitBucketBoundaries(figures.WaitBuckets...)); err != nil {
		return nil, fmt.Errorf("tenancyotel: %w", err)
	}
	for _, kind := range figures.Kinds {
		o.kinds[kind] = opts.with(eventKey.String(string(kind)))
		o.events.Add(context.Background(), 0, o.kinds[kind])
	}
	return o, nil
}

// Observe is tenancy.Observer's. It does not block.
func (o *Observer) Observe(e tenancy.Event) {
	ctx := context.Background() // an event is nobody's request
	kind, ok := o.kinds[e.Kind]
	if !ok { // the plugin is newer than this module
		kind = o.opts.with(eventKey.String(string(e.Kind)))
	}
	o.events.Add(ctx, 1, kind)
	if e.Kind == tenancy.EventWaited {
		o.waits.Record(ctx, e.Took.Seconds(), o.opts.with(ServerKey.String(figures.Server(e.Server))))
	}
}
