package tenancyprometheus

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/figures"
)

// Options are what may be chosen. The zero value is good.
type Options struct {
	// Tenants is of how many tenants there are metrics: those that press
	// hardest on their servers ([tenancy.Plugin.TopTenants]). One with replicas
	// on other servers counts once for each server. So a scrape has never more
	// than seven series for each of Tenants, however many tenants there are.
	// But who is among them changes, and each who ever was stays in
	// Prometheus's index as long as its data does: over a day it may hold
	// several times as many. Defaults to none.
	Tenants int
}

// collector asks the plugin once for each scrape, and keeps nothing.
type collector struct {
	plugin  *tenancy.Plugin
	tenants int
	bad     error
}

// NewCollector returns a collector of plugin's figures. Each scrape takes one
// [tenancy.Plugin.Stats], which asks no database. It may be registered before
// db.Use, and goes on after [tenancy.Plugin.Close].
//
// To tell two plugins of one process apart, register each with a label:
//
//	prometheus.WrapRegistererWith(prometheus.Labels{"app": "billing"}, reg)
//
// What is wrong with plugin or opts is an error of Register.
func NewCollector(plugin *tenancy.Plugin, opts Options) prometheus.Collector {
	c := &collector{plugin: plugin, tenants: opts.Tenants}
	switch {
	case plugin == nil:
		c.bad = errors.New("tenancyprometheus: plugin is nil: pass what tenancy.New returned")
	case opts.Tenants < 0:
		c.bad = fmt.Errorf("tenancyprometheus: Options.Tenants is %d: it must not be negative", opts.Tenants)
	}
	return c
}

// Describe is prometheus.Collector's.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	if c.bad != nil {
		ch <- prometheus.NewInvalidDesc(c.bad)
		return
	}
	for _, f := range ofPlugin {
		ch <- f.desc
	}
	ch <- evicted
	for _, f := range ofServer {
		ch <- f.desc
	}
	if c.tenants > 0 {
		for _, f := range ofTenant {
			ch <- f.desc
		}
	}
}

// Collect is prometheus.Collector's.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	if c.bad != nil { // it was registered unchecked
		ch <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(c.bad), c.bad)
		return
	}
	collectStats(ch, c.plugin.Stats())
	if c.tenants > 0 {
		for _, t := range sumUp(c.plugin.TopTenants(math.MaxInt), c.tenants) {
			collect(ch, ofTenant, &t, t.Tenant, figures.Server(t.Server))
		}
	}
}

func collectStats(ch chan<- prometheus.Metric, s tenancy.Stats) {
	collect(ch, ofPlugin, &s)
	for cause, n := range figures.Evicted(s) {
		ch <- prometheus.MustNewConstMetric(evicted, prometheus.CounterValue, float64(n), string(cause))
	}
	for _, server := range s.Servers {
		collect(ch, ofServer, &server, figures.Server(server.Server))
	}
}

func collect[T any](ch chan<- prometheus.Metric, all []figure[T], from *T, labels ...string) {
	for _, f := range all {
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(from), labels...)
	}
}

// sumUp returns one entry for each tenant and server, of all its pools there: a
// tenant may have several replicas on one server, and the primary beside them.
// It returns the first n, in the order of all, but leaves out no pool of them:
// a sum that went down because a part was cut off would look like a counter
// that has started anew.
func sumUp(all []tenancy.TenantStats, n int) []tenancy.TenantStats {
	type key struct{ tenant, server string }
	at := make(map[key]int)
	var sums []tenancy.TenantStats
	for _, t := range all {
		k := key{t.Tenant, t.Server}
		i, ok := at[k]
		switch {
		case ok:
		case len(sums) == n:
			continue
		default:
			i = len(sums)
			at[k] = i
			sums = append(sums, tenancy.TenantStats{Tenant: t.Tenant, Server: t.Server})
		}
		sum := &sums[i]
		sum.MaxConns += t.MaxConns
		sum.Conns += t.Conns
		sum.Idle += t.Idle
		sum.Waiting += t.Waiting
		sum.Waits += t.Waits
		sum.WaitTime += t.WaitTime
		sum.Exhausted += t.Exhausted
	}
	return sums
}
