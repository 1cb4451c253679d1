// Package figures has what the metrics of contrib/prometheus and contrib/otel, and
// the status page, have in common. The modules may be of an older version than this
// package: add to it, but change nothing that is there.
package figures

import (
	"maps"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gorm-tenancy/tenancy"
)

// Causes are all causes of retirement.
var Causes = []tenancy.Cause{
	tenancy.CauseCapacity, tenancy.CauseIdle, tenancy.CauseEvicted, tenancy.CauseChanged,
	tenancy.CauseGone, tenancy.CauseClosed, tenancy.CauseSwept,
}

// Evicted returns the retirements of s with all causes, those of none too: a
// counter that appears with its first event has no rate then.
func Evicted(s tenancy.Stats) map[tenancy.Cause]uint64 {
	all := make(map[tenancy.Cause]uint64, len(Causes))
	for _, cause := range Causes {
		all[cause] = 0
	}
	maps.Copy(all, s.Evicted)
	return all
}

// Kinds are all kinds of events, which are counted from the start for the same
// reason.
var Kinds = []tenancy.EventKind{
	tenancy.EventOpened, tenancy.EventEvicted, tenancy.EventRefused, tenancy.EventFailed,
	tenancy.EventWaited, tenancy.EventMigrated, tenancy.EventBehind, tenancy.EventAhead,
	tenancy.EventServerDown, tenancy.EventServerUp, tenancy.EventReplicaDown, tenancy.EventReplicaUp,
}

// WaitBuckets are the bounds of a histogram of waits, in seconds: from what a
// connection of the same tenant takes to come back to what AcquireTimeout may
// be.
var WaitBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// Unnamed stands for the databases whose server is not known. To Prometheus an
// empty label is no label.
const Unnamed = "(unnamed)"

// Server returns the label of the server called name: the name itself, or in
// quotes if it is no valid UTF-8, which neither Prometheus nor OTLP can send.
// No two names have the same label.
func Server(name string) string {
	switch {
	case name == "":
		return Unnamed
	case name == Unnamed, strings.HasPrefix(name, `"`), !utf8.ValidString(name):
		return strconv.Quote(name)
	}
	return name
}
