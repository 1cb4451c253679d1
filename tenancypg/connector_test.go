package tenancypg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func parseForTest(t testing.TB, dsn string) *pgx.ConnConfig {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestConnectorConfigChecks(t *testing.T) {
	for _, tt := range []struct {
		name, env, dsn string
		change         func(*pgx.ConnConfig)
		want           string // "" when it is good
	}{
		{"named by the DSN", "", "host=h dbname=db", nil, ""},
		{"named by hand", "", "host=h", func(c *pgx.ConnConfig) { c.Database = "db" }, ""},
		{"named by hand over PGDATABASE", "main", "host=h", func(c *pgx.ConnConfig) { c.Database = "db" }, ""},
		{"named by the DSN as PGDATABASE", "db", "host=h dbname=db", nil, ""},
		{"named by PGDATABASE", "main", "host=h", nil, "must name its database"},
		{"named by the user", "", "host=h user=db", nil, "must name its database"},
		{"63 bytes", "", "host=h", func(c *pgx.ConnConfig) { c.Database = strings.Repeat("x", 63) }, ""},
		{"64 bytes", "", "host=h", func(c *pgx.ConnConfig) { c.Database = strings.Repeat("x", 64) }, "64 bytes"},
		{"a NUL byte", "", "host=h", func(c *pgx.ConnConfig) { c.Database = "a\x00b" }, "NUL"},
		{"made by hand", "", "host=h", func(c *pgx.ConnConfig) {
			*c = pgx.ConnConfig{Config: pgconn.Config{Host: "h", Database: "db"}}
		}, "pgx.ParseConfig"},
		{"half made by hand", "", "host=h dbname=db", func(c *pgx.ConnConfig) { *c = pgx.ConnConfig{Config: c.Config} }, "pgx.ParseConfig"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clearEnv(t)
			t.Setenv("PGDATABASE", tt.env)
			cfg := parseForTest(t, tt.dsn+" password="+secret)
			if tt.change != nil {
				tt.change(cfg)
			}
			c, err := Engine{}.ConnectorConfig(cfg)
			if tt.want == "" {
				if err != nil || c == nil {
					t.Errorf("%v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v does not say %q", err, tt.want)
			}
			noSecret(t, err)
		})
	}
	if _, err := (Engine{}).ConnectorConfig(nil); err == nil {
		t.Error("no error for nil")
	}
}

// The engine's fields apply, to a copy.
func TestConnectorConfigIsACopy(t *testing.T) {
	clearEnv(t)
	var dialled, user string
	var mode pgx.QueryExecMode
	var timeout time.Duration
	var params map[string]string
	e := Engine{
		PreferSimpleProtocol: true,
		ConnectTimeout:       time.Minute,
		Configure: func(cfg *pgx.ConnConfig) error {
			mode, timeout, params = cfg.DefaultQueryExecMode, cfg.ConnectTimeout, cfg.RuntimeParams
			return nil
		},
		BeforeConnect: func(_ context.Context, cfg *pgx.ConnConfig) error {
			user = cfg.User + "@" + cfg.Database
			return nil
		},
	}
	cfg := parseForTest(t, "host=h port=1 user=u dbname=db sslmode=disable TimeZone=Asia/Tokyo password="+secret)
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	cfg.DialFunc = func(_ context.Context, _, addr string) (net.Conn, error) {
		dialled = addr
		return nil, errDialled
	}
	c, err := e.ConnectorConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if mode != pgx.QueryExecModeSimpleProtocol || timeout != time.Minute || params["timezone"] != "Asia/Tokyo" {
		t.Errorf("mode %v, timeout %v, parameters %v", mode, timeout, params)
	}
	if cfg.ConnectTimeout != 0 || cfg.RuntimeParams["timezone"] != "" {
		t.Error("the application's own configuration was changed")
	}

	cfg.Host, cfg.Database, cfg.User, cfg.DialFunc = "elsewhere", "other", "v", nil
	_, err = c.Connect(context.Background())
	if !errors.Is(err, errDialled) || dialled != "h:1" || user != "u@db" {
		t.Errorf("dialled %s as %s: %v", dialled, user, err)
	}
	if s := fmt.Sprintf("%v|%+v|%#v", c, c, c); strings.Contains(s, secret) || !strings.Contains(s, "h:1/db") {
		t.Errorf("it prints as %s", s)
	}
	again, err := e.ConnectorConfig(parseForTest(t, "host=h dbname=db"))
	if err != nil || again == c {
		t.Errorf("two calls gave one connector, %v", err)
	}
}
