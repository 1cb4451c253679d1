package tenancypg

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// One tenant whose connects fail for its own DSN's sake, by TLS here, must not
// cut off the others of its server.
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
		if _, ok := m.(*pgproto3.SSLRequest); ok { // refused
			_, _ = c.Write([]byte("N"))
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
	static := tenancy.Static{"bad": {DSN: "postgres://u@" + addr + "/tls?sslmode=require"}}
	for i := range 10 {
		static[fmt.Sprint("t", i)] = tenancy.Database{DSN: fmt.Sprintf("postgres://u@%s/db%d?sslmode=disable", addr, i)}
	}
	failures := make(chan struct{}) // of bad's connects, while somebody looks
	plugin := tenancy.New(tenancy.Config{Resolver: static, Engine: Engine{}, Observer: tenancy.ObserverFunc(func(e tenancy.Event) {
		if e.Kind == tenancy.EventFailed {
			select {
			case failures <- struct{}{}:
			default:
			}
		}
	})})
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
	connect := func(id string) error {
		ctx, cancel := context.WithTimeout(tenant.Ctx(context.Background(), id), 10*time.Second)
		defer cancel()
		return tenancy.Conn(ctx, db, func(*sql.Conn) error { return nil })
	}
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 6 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = connect("bad")
				}
			}
		})
	}
	for range 10 {
		<-failures // twice as many as open a breaker
	}
	for i := range 10 {
		if err := connect(fmt.Sprint("t", i)); err != nil {
			t.Errorf("t%d: %v", i, err)
		}
		<-failures
	}
	close(stop)
	callers.Wait()
}
