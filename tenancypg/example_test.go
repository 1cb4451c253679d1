package tenancypg_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// A password that something else writes to a file and changes now and then.
func ExampleEngine_beforeConnect() {
	engine := tenancypg.Engine{
		BeforeConnect: func(ctx context.Context, cfg *pgx.ConnConfig) error {
			password, err := os.ReadFile("/run/secrets/db-password")
			if err != nil {
				return err
			}
			cfg.Password = strings.TrimSpace(string(password))
			return nil
		},
	}
	_ = tenancy.Config{Engine: engine}
}

// Every socket of every tenant, those of cancel requests too, is dialled by the
// application's own dialer.
func ExampleEngine_configure() {
	dialer := &net.Dialer{KeepAlive: 30 * time.Second}
	engine := tenancypg.Engine{
		Configure: func(cfg *pgx.ConnConfig) error {
			cfg.DialFunc = dialer.DialContext
			return nil
		},
	}
	_ = tenancy.Config{Engine: engine}
}

// A configuration that the application makes, here with a dialer that finds the
// server by itself, as those of cloud providers do.
func ExampleEngine_ConnectorConfig() {
	cfg, err := pgx.ParseConfig("host=orders-eu port=5432 user=app dbname=acme_1 sslmode=disable")
	if err != nil {
		panic(err)
	}
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) {
		return []string{host}, nil // no DNS: the dialer knows
	}
	cfg.DialFunc = func(ctx context.Context, _, addr string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", "/run/proxy/"+addr)
	}
	connector, err := tenancypg.Engine{}.ConnectorConfig(cfg)
	if err != nil {
		panic(err)
	}
	fmt.Println(connector)

	_ = tenancy.Static{"acme": {Connector: connector}}
	// Output: tenancypg: orders-eu:5432/acme_1
}
