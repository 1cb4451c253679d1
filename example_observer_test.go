package tenancy_test

import (
	"context"
	"log/slog"
	"os"

	"github.com/glebarez/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
)

func logEvent(e tenancy.Event) {
	switch e.Kind {
	case tenancy.EventServerDown:
		slog.Error("tenancy", "event", e.Kind, "server", e.Server, "error", e.Err)
	case tenancy.EventRefused, tenancy.EventFailed, tenancy.EventBehind, tenancy.EventAhead, tenancy.EventReplicaDown:
		slog.Warn("tenancy", "event", e.Kind, "tenant", e.Tenant, "server", e.Server, "error", e.Err)
	case tenancy.EventServerUp, tenancy.EventReplicaUp, tenancy.EventMigrated:
		slog.Info("tenancy", "event", e.Kind, "tenant", e.Tenant, "server", e.Server, "took", e.Took)
	default: // opened, evicted, waited: many, and counted anyway
		slog.Debug("tenancy", "event", e.Kind, "tenant", e.Tenant, "server", e.Server,
			"cause", e.Cause, "took", e.Took, "error", e.Err)
	}
}

// Events go to the log, those that somebody should look at as warnings.
func ExampleObserverFunc() {
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "error" {
				return slog.Attr{}
			}
			return a
		}})))

	db, err := gorm.Open(sqlite.Open(":memory:"), &gorm.Config{Logger: logger.Discard})
	must(err)
	plugin := tenancy.New(tenancy.Config{
		Resolver: tenancy.Static{},
		Observer: tenancy.ObserverFunc(logEvent),
	})
	must(db.Use(plugin))
	db.Find(&[]Invoice{}) // whose?
	must(plugin.Close(context.Background()))
	mainDB, err := db.DB()
	must(err)
	must(mainDB.Close())
	// Output:
	// level=WARN msg=tenancy event=refused tenant="" server=""
}
