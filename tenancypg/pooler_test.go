package tenancypg

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

func TestClassifyPooler(t *testing.T) {
	pooler := func(message string) error {
		return &pgconn.PgError{Severity: "FATAL", Code: "08P01", Message: message}
	}
	for message, want := range map[string]struct{ connecting, inUse tenancy.Fault }{
		"no such database: x":                                                 {tenancy.FaultTenant, tenancy.FaultNone},
		`database "x" does not exist`:                                         {tenancy.FaultTenant, tenancy.FaultNone},
		`database "x" is not currently accepting connections`:                 {tenancy.FaultTenant, tenancy.FaultNone},
		`database "x" is disabled`:                                            {tenancy.FaultTenant, tenancy.FaultNone},
		"no such user":                                                        {tenancy.FaultTenant, tenancy.FaultNone},
		"password authentication failed":                                      {tenancy.FaultTenant, tenancy.FaultNone},
		"SSL required":                                                        {tenancy.FaultTenant, tenancy.FaultNone},
		"unsupported startup parameter: extra_float_digits":                   {tenancy.FaultTenant, tenancy.FaultNone},
		"client_idle_timeout":                                                 {tenancy.FaultTenant, tenancy.FaultNone},
		"query_timeout":                                                       {tenancy.FaultTenant, tenancy.FaultNone},
		"no more connections allowed (max_client_conn)":                       {tenancy.FaultSaturation, tenancy.FaultSaturation},
		"client connections exceeded (max_db_client_connections)":             {tenancy.FaultSaturation, tenancy.FaultSaturation},
		"query_wait_timeout":                                                  {tenancy.FaultSaturation, tenancy.FaultSaturation},
		"sorry, too many clients already":                                     {tenancy.FaultSaturation, tenancy.FaultSaturation},
		"server conn crashed?":                                                {tenancy.FaultServer, tenancy.FaultServer},
		"pooler is shutting down":                                             {tenancy.FaultServer, tenancy.FaultServer},
		"the database system is starting up":                                  {tenancy.FaultServer, tenancy.FaultServer},
		"client_login_timeout (server down)":                                  {tenancy.FaultServer, tenancy.FaultServer},
		"server login has been failing, try again later (server_login_retry)": {tenancy.FaultTenant, tenancy.FaultTenant},
		"server login has been failing, cached error: connect failed (server_login_retry)":              {tenancy.FaultServer, tenancy.FaultServer},
		`server login has been failing, cached error: database "x" does not exist (server_login_retry)`: {tenancy.FaultTenant, tenancy.FaultTenant},
	} {
		if got := (Engine{}).Classify(pooler(message)); got != want.inUse {
			t.Errorf("%s, in use: %v, want %v", message, got, want.inUse)
		}
		if got := classifyCode(pooler(message).(*pgconn.PgError), true); got != want.connecting {
			t.Errorf("%s, connecting: %v, want %v", message, got, want.connecting)
		}
	}
}

// What a real PgBouncer says, with a server behind it and without one.
func TestBouncerErrors(t *testing.T) {
	clearEnv(t)
	const slots = 8
	pg := pgtest.Start(t, pgtest.MaxConns(slots))
	known := pg.CreateDatabase(t)
	pg.Exec(t, "postgres", "CREATE DATABASE closed ALLOW_CONNECTIONS false")
	bouncer := func(opts ...pgtest.BouncerOption) *pgtest.Bouncer {
		return pgtest.StartBouncer(t, pg, append(opts,
			pgtest.PoolMode("transaction"),
			pgtest.BouncerSetting("default_pool_size", "1"),
			pgtest.BouncerSetting("server_login_retry", "1"),
			pgtest.BouncerSetting("query_wait_timeout", "1"))...)
	}
	b := bouncer()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dial := func(dsn string) (*pgx.Conn, error) {
		cfg, _, err := Engine{PreferSimpleProtocol: true}.parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			t.Cleanup(func() { _ = c.Close(context.Background()) })
		}
		return c, err
	}
	try := func(dsn string) error {
		c, err := dial(dsn)
		if err == nil {
			// Where PgBouncer knows the database from before, it asks the
			// server only now.
			_, err = c.Exec(ctx, "SELECT 1")
		}
		return err
	}
	check := func(name string, err error, want ...tenancy.Fault) {
		t.Helper()
		got := Engine{}.Classify(err)
		t.Logf("%s: %v: %v", name, got, err)
		for _, w := range want {
			if err != nil && got == w {
				return
			}
		}
		t.Errorf("%s: %v is %v, want %v", name, err, got, want)
	}

	check("missing database", try(b.DSN("nowhere")), tenancy.FaultTenant)
	// Now it may be waiting for server_login_retry, or say so.
	check("missing database again", try(b.DSN("nowhere")), tenancy.FaultTenant, tenancy.FaultSaturation)
	check("closed database", try(b.DSN("closed")), tenancy.FaultTenant)
	check("unknown user", try(fmt.Sprintf("postgres://nobody@%s/%s?sslmode=disable", b.Addr(), known)), tenancy.FaultTenant)
	check("startup parameter", try(b.DSN(known)+"&extra_float_digits=3"), tenancy.FaultTenant)

	full := bouncer(pgtest.BouncerSetting("max_client_conn", "2"))
	var refusal error
	for range 3 {
		if _, refusal = dial(full.DSN(known)); refusal != nil {
			break
		}
	}
	check("max_client_conn", refusal, tenancy.FaultSaturation)
	full.Stop()

	holder, err := dial(b.DSN(known))
	if err != nil {
		t.Fatal(err)
	}
	tx, err := holder.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	check("query_wait_timeout", try(b.DSN(known)), tenancy.FaultSaturation)

	for range slots + 1 { // those of PgBouncer count too
		c, err := pgx.Connect(ctx, pg.DSN("postgres"))
		if err != nil {
			break
		}
		defer c.Close(context.Background())
	}
	check("server full", try(b.DSN("template1")), tenancy.FaultSaturation)

	pg.Kill()
	_, err = tx.Exec(ctx, "SELECT 1")
	check("server lost in use", err, tenancy.FaultServer)
	// It can't be told whether a server connection is just hard to get.
	check("server down", try(b.DSN(known)), tenancy.FaultServer, tenancy.FaultSaturation)
	check("server down again", try(b.DSN(known)), tenancy.FaultServer, tenancy.FaultSaturation, tenancy.FaultTenant)

	b.Stop()
	check("PgBouncer down", try(b.DSN(known)), tenancy.FaultServer)
}
