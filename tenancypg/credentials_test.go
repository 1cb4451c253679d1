package tenancypg

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// errDialled is the error of all dials of undialled.
var errDialled = errors.New("dialled")

// undialled is an Engine that can't dial, and the count of its tries.
func undialled(before func(context.Context, *pgx.ConnConfig) error) (Engine, *atomic.Int32) {
	var dials atomic.Int32
	return Engine{
		BeforeConnect: before,
		Configure: func(cfg *pgx.ConnConfig) error {
			cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{"192.0.2.1"}, nil }
			cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				return nil, errDialled
			}
			return nil
		},
	}, &dials
}

func connect(t testing.TB, e Engine, ctx context.Context, dsn string) error {
	t.Helper()
	c, err := e.Connector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	dc, err := c.Connect(ctx)
	if err == nil {
		_ = dc.Close()
	}
	return err
}

// Whatever the function does to its copy, the dial goes where the DSN says or
// does not happen.
func TestBeforeConnectCantLeadElsewhere(t *testing.T) {
	clearEnv(t)
	const (
		plain  = "postgres://u:" + secret + "@h:1/db?sslmode=disable"
		two    = "postgres://u:" + secret + "@h:1,i:2/db?sslmode=disable"
		prefer = "postgres://u:" + secret + "@h:1/db?sslmode=prefer"
		full   = "postgres://u:" + secret + "@h:1/db?sslmode=verify-full"
	)
	parsed := func(dsn string) func(*pgx.ConnConfig) {
		return func(c *pgx.ConnConfig) {
			cfg, err := pgx.ParseConfig(dsn)
			if err != nil {
				panic(err)
			}
			*c = *cfg
		}
	}
	for _, tt := range []struct {
		name, dsn string
		change    func(*pgx.ConnConfig)
		want      string // "" when the dial goes ahead
	}{
		{"nothing", plain, func(*pgx.ConnConfig) {}, ""},
		{"login", plain, func(c *pgx.ConnConfig) { c.User, c.Password = "v", "w" }, ""},
		{"new TLS", plain, func(c *pgx.ConnConfig) { c.TLSConfig = &tls.Config{ServerName: "h"} }, ""},
		{"other certificates", full, func(c *pgx.ConnConfig) { c.TLSConfig.RootCAs = x509.NewCertPool() }, ""},
		{"a DSN of the same place", plain, parsed("postgres://v:w@h:1/db?sslmode=disable"), ""},
		{"database", plain, func(c *pgx.ConnConfig) { c.Database = secret }, "Database"},
		{"no database", plain, func(c *pgx.ConnConfig) { c.Database = "" }, "Database"},
		{"host", plain, func(c *pgx.ConnConfig) { c.Host = secret }, "Host"},
		{"port", plain, func(c *pgx.ConnConfig) { c.Port++ }, "Port"},
		{"everything", plain, func(c *pgx.ConnConfig) { *c = pgx.ConnConfig{} }, "Database"},
		{"a DSN of another database", plain, parsed("postgres://u:" + secret + "@h:1/other?sslmode=disable"), "Database"},
		{"a DSN of another host", plain, parsed("postgres://u:" + secret + "@i:1/db?sslmode=disable"), "Host"},
		{"one more host", plain, func(c *pgx.ConnConfig) {
			c.Fallbacks = append(c.Fallbacks, &pgconn.FallbackConfig{Host: secret, Port: 1})
		}, "Fallbacks"},
		{"one host less", two, func(c *pgx.ConnConfig) { c.Fallbacks = nil }, "Fallbacks"},
		{"a nil host", two, func(c *pgx.ConnConfig) { c.Fallbacks[0] = nil }, "Fallbacks"},
		{"second host", two, func(c *pgx.ConnConfig) { c.Fallbacks[0].Host = "h" }, "Fallbacks"},
		{"second port", two, func(c *pgx.ConnConfig) { c.Fallbacks[0].Port = 1 }, "Fallbacks"},
		{"no TLS", full, func(c *pgx.ConnConfig) { c.TLSConfig = nil }, "took a TLSConfig away"},
		{"no TLS, by a DSN", full, parsed("postgres://u:" + secret + "@h:1/db?sslmode=disable"), "took a TLSConfig away"},
		{"less TLS", prefer, func(c *pgx.ConnConfig) { c.TLSConfig = c.Fallbacks[0].TLSConfig }, "took a TLSConfig away"},
		{"another name", full, func(c *pgx.ConnConfig) { c.TLSConfig.ServerName = secret }, "ServerName"},
	} {
		e, dials := undialled(func(_ context.Context, cfg *pgx.ConnConfig) error { tt.change(cfg); return nil })
		err := connect(t, e, context.Background(), tt.dsn)
		if tt.want == "" {
			if !errors.Is(err, errDialled) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if dials.Load() != 0 || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d dials, and the error %v does not say %q", tt.name, dials.Load(), err, tt.want)
		}
		if f := e.Classify(err); f != tenancy.FaultNone {
			t.Errorf("%s: %v is %v", tt.name, err, f)
		}
		noSecret(t, err)
	}
}

// What is not a credential has no effect, in this dial and in the next.
func TestBeforeConnectChangesACopy(t *testing.T) {
	clearEnv(t)
	var mu sync.Mutex
	var seen []string
	e, dials := undialled(func(_ context.Context, cfg *pgx.ConnConfig) error {
		mu.Lock()
		seen = append(seen, fmt.Sprint(cfg.User, cfg.Password, cfg.RuntimeParams, cfg.Fallbacks[0].TLSConfig == nil, cfg.Host))
		mu.Unlock()
		cfg.User, cfg.Password = "v", "w"
		cfg.RuntimeParams["application_name"] = "mine"
		cfg.Fallbacks[0].TLSConfig = &tls.Config{}
		cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("went elsewhere") }
		cfg.LookupFunc = func(context.Context, string) ([]string, error) { return nil, errors.New("looked elsewhere") }
		return nil
	})
	c, err := e.Connector("postgres://u:p@h:1/db?sslmode=prefer&application_name=app")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := c.Connect(context.Background()); !errors.Is(err, errDialled) {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	if dials.Load() != 8 { // with TLS and without
		t.Errorf("%d dials by the engine's DialFunc", dials.Load())
	}
	for _, s := range seen {
		if s != seen[0] {
			t.Errorf("one call saw %s, another one %s", seen[0], s)
		}
	}
}

func TestClassifyBeforeConnect(t *testing.T) {
	clearEnv(t)
	_, parseErr := pgx.ParseConfig("postgres://u:" + secret + "@h:port/db")
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	expired, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	background := context.Background()
	refused := connectTo(t, background, refusing(t), "")
	for _, tt := range []struct {
		name string
		ctx  context.Context
		err  error // nil: that of the ctx it is given
		want tenancy.Fault
	}{
		{"its own", background, errors.New("vault is down"), tenancy.FaultNone},
		{"a cancel of its own", background, fmt.Errorf("vault: %w", context.Canceled), tenancy.FaultNone},
		{"a deadline of its own", background, fmt.Errorf("vault: %w", context.DeadlineExceeded), tenancy.FaultNone},
		{"another server's", background, &pgconn.PgError{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01"}, tenancy.FaultNone},
		{"a broken socket", background, &net.OpError{Op: "read", Err: errors.New("reset")}, tenancy.FaultNone},
		{"another connect's", background, refused, tenancy.FaultNone},
		{"a bad DSN", background, parseErr, tenancy.FaultNone},
		{"the connect timeout", background, nil, tenancy.FaultNone},
		{"the caller's cancel", canceled, nil, tenancy.FaultCaller},
		{"the caller's deadline", expired, nil, tenancy.FaultCaller},
	} {
		e, dials := undialled(func(ctx context.Context, _ *pgx.ConnConfig) error {
			if tt.err != nil {
				return tt.err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		e.ConnectTimeout = time.Millisecond
		err := connect(t, e, tt.ctx, "postgres://u@h:1/db")
		if got := e.Classify(fmt.Errorf("wrapped: %w", err)); got != tt.want {
			t.Errorf("%s: %v is %v, want %v", tt.name, err, got, tt.want)
		}
		if tt.err != nil && tt.err != parseErr && !errors.Is(err, tt.err) {
			t.Errorf("%s: the function's error is not in %v", tt.name, err)
		}
		if dials.Load() != 0 {
			t.Errorf("%s: %d dials", tt.name, dials.Load())
		}
		noSecret(t, err)
	}
}

// refusing returns an address where nobody listens.
func refusing(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The password changes while the application runs: connections that are open
// go on, and new ones fetch the new one.
func TestLivePasswordRotation(t *testing.T) {
	clearEnv(t)
	pg := pgtest.Start(t, pgtest.HBA("host all clerk 127.0.0.1/32 scram-sha-256"))
	pg.Exec(t, "postgres", "CREATE ROLE clerk LOGIN PASSWORD 'first"+secret+"'")
	name := pg.CreateDatabase(t)

	var vault atomic.Pointer[string]
	set := func(s string) { vault.Store(&s) }
	set("first" + secret)
	e := Engine{BeforeConnect: func(_ context.Context, cfg *pgx.ConnConfig) error {
		cfg.Password = *vault.Load()
		return nil
	}}
	dsn := fmt.Sprintf("postgres://clerk@%s/%s?sslmode=disable", pg.Addr(), name)
	c, err := e.Connector(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(c)
	defer db.Close()
	ctx := context.Background()
	dial := func() (*sql.Conn, error) { // all others are in use
		t.Helper()
		open := db.Stats().OpenConnections
		if idle := db.Stats().Idle; idle != 0 {
			t.Fatalf("%d connections are idle", idle)
		}
		conn, err := db.Conn(ctx)
		if err == nil && db.Stats().OpenConnections != open+1 {
			t.Error("nothing was dialled")
		}
		return conn, err
	}
	works := func(conn *sql.Conn) {
		t.Helper()
		var user, in string
		if err := conn.QueryRowContext(ctx, "SELECT current_user, current_database()").Scan(&user, &in); err != nil || user != "clerk" || in != name {
			t.Errorf("%s in %s, %v", user, in, err)
		}
	}

	old, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	works(old)

	pg.Exec(t, "postgres", "ALTER ROLE clerk PASSWORD 'second"+secret+"'")
	works(old)
	_, err = dial() // the vault is late
	if f := e.Classify(err); f != tenancy.FaultTenant {
		t.Errorf("the old password: %v is %v", err, f)
	}
	noSecret(t, err)

	set("second" + secret)
	fresh, err := dial()
	if err != nil {
		t.Fatalf("the new password: %v", err)
	}
	defer fresh.Close()
	works(fresh)
	works(old)
}
