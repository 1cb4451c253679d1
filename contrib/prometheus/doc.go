// Package tenancyprometheus exports a plugin's figures to Prometheus.
//
//	observer := tenancyprometheus.NewObserver()
//	plugin := tenancy.New(tenancy.Config{
//		Resolver: resolver,
//		Engine:   tenancypg.Engine{},
//		Observer: observer,
//	})
//	prometheus.MustRegister(observer, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{}))
//
// [NewCollector] has all of [tenancy.Stats]; [Observer], which can be left out,
// counts events and has a histogram of waits. docs/observability.md says what
// each metric means, and alerts.yml, beside this package, has rules for
// Prometheus.
//
// Metrics have no tenant label, unless [Options] has Tenants: each tenant costs
// seven series. The label server is the name that [tenancy.ServerStats] has;
// "(unnamed)" where a server is not known, and a name that is no valid UTF-8 in
// quotes, as Go's %q writes it.
package tenancyprometheus
