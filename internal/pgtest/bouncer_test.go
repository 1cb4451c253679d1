package pgtest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestBouncer(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	db := pg.CreateDatabase(t)
	b := pgtest.StartBouncer(t, pg, pgtest.PoolMode("transaction"), pgtest.BouncerSetting("max_user_connections", "3"))
	if !b.AtLeast(1, 0) || b.AtLeast(99, 0) {
		t.Error("the version is not known")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cfg, err := pgx.ParseConfig(b.DSN(db))
	if err != nil {
		t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var got string
	if err := conn.QueryRow(ctx, "SELECT current_database()").Scan(&got); err != nil || got != db {
		t.Errorf("got %q, %v, want %q", got, err, db)
	}

	found := false
	for _, pool := range b.Show(t, "POOLS") {
		found = found || pool["database"] == db && pool["pool_mode"] == "transaction"
	}
	if !found {
		t.Errorf("SHOW POOLS has no pool of %s", db)
	}
	for _, row := range b.Show(t, "CONFIG") {
		if row["key"] == "max_user_connections" && row["value"] != "3" {
			t.Errorf("max_user_connections is %s", row["value"])
		}
	}
	if !strings.Contains(b.Log(), "listening on "+b.Addr()) {
		t.Errorf("the log has %q", b.Log())
	}

	b.Stop()
	if err := conn.Ping(ctx); err == nil {
		t.Error("a connection survived")
	}
	if _, err := pgx.Connect(ctx, b.DSN(db)); err == nil {
		t.Error("it still answers")
	}
	b.Stop() // of a stopped one: nothing
}
