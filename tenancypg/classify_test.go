package tenancypg

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/gorm-tenancy/tenancy"
)

func TestClassify(t *testing.T) {
	pg := func(severity, code string) error {
		return fmt.Errorf("wrapped: %w", &pgconn.PgError{Severity: "ÉCHEC", SeverityUnlocalized: severity, Code: code})
	}
	for _, tt := range []struct {
		err  error
		want tenancy.Fault
	}{
		{nil, tenancy.FaultNone},
		{errors.New("anything"), tenancy.FaultNone},
		{context.Canceled, tenancy.FaultCaller},
		{fmt.Errorf("query: %w", context.DeadlineExceeded), tenancy.FaultCaller},
		{io.ErrUnexpectedEOF, tenancy.FaultServer},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, tenancy.FaultServer},
		{driver.ErrBadConn, tenancy.FaultNone},
		{pgconn.ErrConnClosed, tenancy.FaultNone},
		{pg("FATAL", "57P01"), tenancy.FaultServer},
		{pg("FATAL", "57P02"), tenancy.FaultServer},
		{pg("FATAL", "57P03"), tenancy.FaultServer}, // a standby that is not consistent yet, or takes no readers
		{pg("FATAL", "57P04"), tenancy.FaultTenant},
		{pg("FATAL", "40001"), tenancy.FaultNone}, // a session in the way of a standby's recovery
		{pg("ERROR", "40001"), tenancy.FaultNone}, // so was its statement
		{pg("FATAL", "57P05"), tenancy.FaultNone},
		{pg("FATAL", "08P01"), tenancy.FaultServer},
		{pg("FATAL", "25P03"), tenancy.FaultNone}, // idle in transaction for too long
		{pg("", "57P01"), tenancy.FaultServer},
		{&pgconn.PgError{Severity: "ERROR", Code: "55000"}, tenancy.FaultNone}, // before 9.6
		{pg("ERROR", "23505"), tenancy.FaultNone},
		{pg("ERROR", "42601"), tenancy.FaultNone},
		{pg("ERROR", "42501"), tenancy.FaultNone}, // a table, not the database
		{pg("ERROR", "55000"), tenancy.FaultNone}, // currval
		{pg("ERROR", "3D000"), tenancy.FaultNone}, // DROP DATABASE of no database
		{pg("ERROR", "53400"), tenancy.FaultNone}, // temp_file_limit
		{pg("ERROR", "57014"), tenancy.FaultNone}, // statement_timeout
		{pg("ERROR", "08006"), tenancy.FaultNone}, // dblink
	} {
		if got := (Engine{}).Classify(tt.err); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
	}
}

// What pgx makes of a server's answer to a connect.
func TestClassifyConnect(t *testing.T) {
	clearEnv(t)
	for code, want := range map[string]tenancy.Fault{
		"3D000": tenancy.FaultTenant,
		"55000": tenancy.FaultTenant,
		"28P01": tenancy.FaultTenant,
		"28000": tenancy.FaultTenant,
		"42501": tenancy.FaultTenant,
		"42704": tenancy.FaultTenant,
		"53300": tenancy.FaultSaturation,
		"53400": tenancy.FaultSaturation,
		"53200": tenancy.FaultServer,
		"57014": tenancy.FaultServer,
		"57P03": tenancy.FaultServer,
		"08P01": tenancy.FaultServer,
	} {
		t.Run(code, func(t *testing.T) {
			addr := serve(t, func(c net.Conn) {
				b := pgproto3.NewBackend(c, c)
				if _, err := b.ReceiveStartupMessage(); err != nil {
					return
				}
				b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: "no"})
				_ = b.Flush()
			})
			err := connectTo(t, context.Background(), addr, "")
			if got := (Engine{}).Classify(err); got != want {
				t.Errorf("%v: %v, want %v", err, got, want)
			}
		})
	}
}

func TestClassifyUnreachable(t *testing.T) {
	clearEnv(t)
	hangUp := serve(t, func(net.Conn) {})
	accepted := make(chan struct{}, 1)
	silent := serve(t, func(c net.Conn) {
		accepted <- struct{}{}
		_, _ = io.Copy(io.Discard, c) // until the client gives up
	})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := closed.Addr().String()
	_ = closed.Close()

	ctx := context.Background()
	check := func(name string, err error, want tenancy.Fault) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: connected", name)
		} else if got := (Engine{}).Classify(err); got != want {
			t.Errorf("%s: %v is %v, want %v", name, err, got, want)
		}
	}
	check("hangs up", connectTo(t, ctx, hangUp, ""), tenancy.FaultServer)
	check("refused", connectTo(t, ctx, refused, ""), tenancy.FaultServer)
	check("no TLS", connectTo(t, ctx, hangUp, "&sslmode=require"), tenancy.FaultServer)

	start := time.Now()
	check("connect_timeout", connectTo(t, ctx, silent, "&connect_timeout=1"), tenancy.FaultServer)
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("connect_timeout=1 took %v", d)
	}
	<-accepted

	canceled, cancel := context.WithCancel(ctx)
	go func() { <-accepted; cancel() }()
	check("cancelled", connectTo(t, canceled, silent, ""), tenancy.FaultCaller)
}

// serve accepts connections, hands each to handle and closes it after.
func serve(t testing.TB, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func connectTo(t testing.TB, ctx context.Context, addr, params string) error {
	t.Helper()
	if params == "" {
		params = "&sslmode=disable"
	} else if params[:5] != "&sslm" {
		params += "&sslmode=disable"
	}
	c, err := Engine{}.Connector("postgres://u@" + addr + "/db?application_name=test" + params)
	if err != nil {
		t.Fatal(err)
	}
	dc, err := c.Connect(ctx)
	if err == nil {
		_ = dc.Close()
	}
	return err
}
