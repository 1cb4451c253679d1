package tenancyprometheus

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/figures"
)

// Observer counts what [tenancy.Plugin.Stats] has no figure of: events by their
// kind, and how long each caller waited for a connection. It is both a
// [tenancy.Observer] and a collector:
//
//	observer := tenancyprometheus.NewObserver()
//	reg.MustRegister(observer)
//	plugin := tenancy.New(tenancy.Config{Observer: observer, ...})
//
// An application that observes events itself calls Observe from there.
//
// Callers that found a connection free are not in the histogram.
type Observer struct {
	events *prometheus.CounterVec
	waits  *prometheus.HistogramVec
}

// NewObserver returns an Observer for one plugin, or for several whose events
// are counted together.
func NewObserver() *Observer {
	o := &Observer{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenancy_events_total",
			Help: "Events, by kind.",
		}, []string{"kind"}),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tenancy_server_wait_duration_seconds",
			Help:    "How long a caller that had to wait for a connection waited, in vain or not.",
			Buckets: figures.WaitBuckets,
		}, []string{"server"}),
	}
	for _, kind := range figures.Kinds {
		o.events.WithLabelValues(string(kind))
	}
	return o
}

// Observe is tenancy.Observer's. It does not block.
func (o *Observer) Observe(e tenancy.Event) {
	o.events.WithLabelValues(string(e.Kind)).Inc()
	if e.Kind == tenancy.EventWaited {
		o.waits.WithLabelValues(figures.Server(e.Server)).Observe(e.Took.Seconds())
	}
}

// Describe is prometheus.Collector's.
func (o *Observer) Describe(ch chan<- *prometheus.Desc) {
	o.events.Describe(ch)
	o.waits.Describe(ch)
}

// Collect is prometheus.Collector's.
func (o *Observer) Collect(ch chan<- prometheus.Metric) {
	o.events.Collect(ch)
	o.waits.Collect(ch)
}
