package tenancyotel

import (
	"runtime/debug"
	"slices"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// ScopeName is the name of the instrumentation scope.
const ScopeName = "github.com/gorm-tenancy/tenancy/contrib/otel"

// The attributes' keys.
const (
	// TenantKey is on spans: the tenant's id, or "_main", which can't be an id,
	// where the main database is meant.
	TenantKey = attribute.Key("tenancy.tenant")
	// ServerKey is on metrics: the name that [tenancy.ServerStats] has. It is
	// "(unnamed)" where a server is not known, and a name that is no valid
	// UTF-8 is in quotes, as Go's %q writes it.
	ServerKey = attribute.Key("tenancy.server")

	causeKey = attribute.Key("tenancy.cause")
	eventKey = attribute.Key("tenancy.event")
	stateKey = attribute.Key("tenancy.state")
	roleKey  = attribute.Key("tenancy.role")
)

// Options are what may be chosen for metrics. The zero value is good.
type Options struct {
	// MeterProvider makes the instruments. Defaults to
	// [otel.GetMeterProvider]'s.
	MeterProvider metric.MeterProvider
	// Attributes are added to each metric. Two plugins in one process need
	// one to be told apart by.
	Attributes []attribute.KeyValue
}

func (o Options) meter() metric.Meter {
	provider := o.MeterProvider
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	return provider.Meter(ScopeName, metric.WithInstrumentationVersion(version()))
}

// with returns the option of o's attributes and more.
func (o Options) with(more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(slices.Concat(more, o.Attributes)...))
}

// version is the version of this module in the program, "" if it is not known.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == ScopeName {
			return m.Version
		}
	}
	return ""
}
