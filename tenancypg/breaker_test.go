package tenancypg

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// One tenant whose connects hang (its database is copied, PgBouncer has paused
// it) or fail for its own DSN's sake (TLS) must not cut off the others of its
// server.
func TestOneTenantsConnectsAreNotTheServers(t *testing.T) {
	clearEnv(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()
	answer := func(c net.Conn) {
		defer c.Close()
		b := pgproto3.NewBackend(c, c)
		m, err := b.ReceiveStartupMessage()
		if err != nil {
			return
		}
		if _, ok := m.(*pgproto3.SSLRequest); ok {
			_, _ = c.Write([]byte("N"))
			return
		}
		if m.(*pgproto3.StartupMessage).Parameters["database"] == "hangs" {
			_, _ = io.Copy(io.Discard, c)
			return
		}
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = b.Flush()
		_, _ = io.Copy(io.Discard, c)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	for _, bad := range []string{"tls?sslmode=require"} { // "hangs" too, but that takes 16 s
		t.Run(bad, func(t *testing.T) {
			static := tenancy.Static{"bad": {DSN: "postgres://u@" + addr + "/" + bad}}
			for i := range 10 {
				static[fmt.Sprint("t", i)] = tenancy.Database{DSN: fmt.Sprintf("postgres://u@%s/db%d?sslmode=disable", addr, i)}
			}
			static["bad"] = tenancy.Database{DSN: static["bad"].DSN + map[bool]string{true: "?sslmode=disable"}[bad == "hangs"]}
			plugin := tenancy.New(tenancy.Config{Resolver: static, Engine: Engine{}})
			main, err := sql.Open("pgx", "postgres://u@"+addr+"/main?sslmode=disable")
			if err != nil {
				t.Fatal(err)
			}
			defer main.Close()
			db, err := gorm.Open(postgres.New(postgres.Config{Conn: main}), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Use(plugin); err != nil {
				t.Fatal(err)
			}
			defer plugin.Close(context.Background())
			stop := make(chan struct{})
			for range 6 {
				go func() {
					for {
						select {
						case <-stop:
							return
						case <-time.After(5 * time.Millisecond):
							ctx, cancel := context.WithTimeout(tenant.Ctx(context.Background(), "bad"), time.Second)
							_ = tenancy.Conn(ctx, db, func(*sql.Conn) error { return nil })
							cancel()
						}
					}
				}()
			}
			time.Sleep(time.Second)
			failed := 0
			for i := range 10 {
				ctx, cancel := context.WithTimeout(tenant.Ctx(context.Background(), fmt.Sprint("t", i)), time.Second)
				if err := tenancy.Conn(ctx, db, func(*sql.Conn) error { return nil }); err != nil {
					failed++
					t.Log(err)
				}
				cancel()
				time.Sleep(100 * time.Millisecond)
			}
			close(stop)
			if s := plugin.Stats().Servers[0]; failed > 0 {
				t.Errorf("%d of 10 others failed; %d trips", failed, s.Trips)
			}
		})
	}
}
