package tenancyprometheus_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/glebarez/sqlite"
	"github.com/prometheus/client_golang/prometheus"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	tenancyprometheus "github.com/gorm-tenancy/tenancy/contrib/prometheus"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "tenancy-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	resolver := tenancy.Static{"acme": {DSN: filepath.Join(dir, "acme.db"), Server: "files"}}
	if err := tenancysqlite.Create(ctx, resolver["acme"].DSN); err != nil {
		log.Fatal(err)
	}

	observer := tenancyprometheus.NewObserver()
	plugin := tenancy.New(tenancy.Config{
		Resolver: resolver,
		Engine:   tenancysqlite.Engine{},
		Observer: observer,
	})
	reg := prometheus.NewRegistry()
	reg.MustRegister(observer, tenancyprometheus.NewCollector(plugin, tenancyprometheus.Options{}))

	db, err := gorm.Open(sqlite.Open(":memory:"))
	if err != nil {
		log.Fatal(err)
	}
	if err := db.Use(plugin); err != nil {
		log.Fatal(err)
	}
	defer func() {
		plugin.Close(ctx)
		mainDB, _ := db.DB()
		mainDB.Close()
	}()
	if err := db.WithContext(tenant.Ctx(ctx, "acme")).Exec("CREATE TABLE orders (id integer)").Error; err != nil {
		log.Fatal(err)
	}

	// promhttp.HandlerFor(reg, promhttp.HandlerOpts{}) is what Prometheus scrapes.
	families, err := reg.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, family := range families {
		switch name := family.GetName(); name {
		case "tenancy_pools_opened_total":
			fmt.Println(name, family.GetMetric()[0].GetCounter().GetValue())
		case "tenancy_server_connections":
			m := family.GetMetric()[0]
			fmt.Println(name, m.GetLabel()[0].GetValue(), m.GetGauge().GetValue())
		}
	}
	// Output:
	// tenancy_pools_opened_total 1
	// tenancy_server_connections files 1
}

func logEvent(e tenancy.Event) { slog.Debug("tenancy", "event", e.Kind) }

// An application that observes events itself hands them on.
func ExampleObserver_Observe() {
	observer := tenancyprometheus.NewObserver()
	plugin := tenancy.New(tenancy.Config{
		Resolver: tenancy.Static{},
		Observer: tenancy.ObserverFunc(func(e tenancy.Event) {
			observer.Observe(e)
			logEvent(e)
		}),
	})
	fmt.Println(plugin.Stats().Pools)
	// Output: 0
}
