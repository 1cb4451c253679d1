package tenancyotel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/figures"
)

// Metrics makes instruments for all of plugin's figures. Each collection takes
// one [tenancy.Plugin.Stats], which asks no database. It may be called before
// db.Use; Unregister, of what it returns, ends it, and
// [tenancy.Plugin.Close] does not.
func Metrics(plugin *tenancy.Plugin, opts Options) (metric.Registration, error) {
	if plugin == nil {
		return nil, errors.New("tenancyotel: plugin is nil: pass what tenancy.New returned")
	}
	opts.Attributes = slices.Clone(opts.Attributes)
	r, err := newRecorder(opts)
	if err != nil {
		return nil, fmt.Errorf("tenancyotel: %w", err)
	}
	registration, err := r.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		r.record(o, plugin.Stats())
		return nil
	}, r.all...)
	if err != nil {
		return nil, fmt.Errorf("tenancyotel: %w", err)
	}
	return registration, nil
}

// recorder has the instruments.
type recorder struct {
	opts               Options
	meter              metric.Meter
	ofPlugin, ofServer []metric.Int64Observable // as in the tables of these names
	evicted            metric.Int64Observable
	waitTime           metric.Float64Observable
	all                []metric.Observable
}

func newRecorder(opts Options) (*recorder, error) {
	r := &recorder{opts: opts, meter: opts.meter()}
	var errs [4]error
	r.ofPlugin, errs[0] = instruments(r, ofPlugin)
	r.ofServer, errs[1] = instruments(r, ofServer)
	r.evicted, errs[2] = r.meter.Int64ObservableCounter("tenancy.pool.evicted",
		metric.WithUnit("{pool}"), metric.WithDescription("Pools that were retired, by cause."))
	r.waitTime, errs[3] = r.meter.Float64ObservableCounter("tenancy.server.wait_time",
		metric.WithUnit("s"), metric.WithDescription("The sum of the waits for a connection."))
	r.all = append(r.all, r.evicted, r.waitTime)
	return r, errors.Join(errs[:]...)
}

func instruments[T any](r *recorder, table []figure[T]) (made []metric.Int64Observable, err error) {
	for _, f := range table {
		i, err := f.instrument(r.meter)
		if err != nil {
			return nil, err
		}
		made = append(made, i)
		r.all = append(r.all, i)
	}
	return made, nil
}

func (r *recorder) record(o metric.Observer, s tenancy.Stats) {
	observe(r, o, r.ofPlugin, ofPlugin, &s)
	for cause, n := range figures.Evicted(s) {
		o.ObserveInt64(r.evicted, int64(n), r.opts.with(causeKey.String(string(cause))))
	}
	for _, server := range s.Servers {
		name := ServerKey.String(figures.Server(server.Server))
		observe(r, o, r.ofServer, ofServer, &server, name)
		o.ObserveFloat64(r.waitTime, server.WaitTime.Seconds(), r.opts.with(name))
	}
}

func observe[T any](r *recorder, o metric.Observer, instruments []metric.Int64Observable, table []figure[T], from *T, attrs ...attribute.KeyValue) {
	for i, f := range table {
		for _, p := range f.parts {
			all := attrs
			if p.attr.Valid() {
				all = append(slices.Clip(attrs), p.attr)
			}
			o.ObserveInt64(instruments[i], p.of(from), r.opts.with(all...))
		}
	}
}
