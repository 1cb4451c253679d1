package catalog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// billed is a migration in Go that asks another service, which is down. It says
// so without a FailedError, which is optional.
type billed struct{ steps }

func (billed) Up(context.Context, *sql.DB, int64) ([]migrate.Applied, error) {
	return nil, fmt.Errorf("calling the billing service: %w", &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED})
}

// TestFleetMigrationAsksDeadService: that looks as if the database server were
// down, but it has been reached. So it is the tenant that is tried again, as
// often as Attempts says, and not the server that is waited for.
func TestFleetMigrationAsksDeadService(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	p.start(t, withSteps(steps{target: 1})).create(t, "a")
	pr := p.start(t, func(cfg *catalog.Config) { cfg.Migrator = billed{steps{target: 2}} })
	kinds := map[migrate.EventKind]int{}
	report, err := pr.run(migrate.Options{Attempts: 2, Backoff: time.Millisecond, OnEvent: func(e migrate.Event) { kinds[e.Kind]++ }}).end(t)
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Equal(t, 1, report.Failed)
	require.Equal(t, 2, report.Tenants[0].Attempts)
	require.Contains(t, report.Tenants[0].Error, "the billing service")
	require.Equal(t, 1, kinds[migrate.EventRetry])
	require.Zero(t, kinds[migrate.EventServerDown])
}

// poisoned is a server of which one database ends whoever connects to it: the
// first one that is asked for.
type poisoned struct {
	catalog.Server
	name atomic.Pointer[string]
}

func (s *poisoned) Classify(err error) tenancy.Fault {
	return s.Server.(catalog.Classifier).Classify(err)
}

func (s *poisoned) LockDatabase(ctx context.Context, name string, l migrate.Lock) (*migrate.Exclusive, error) {
	s.name.CompareAndSwap(nil, &name)
	if *s.name.Load() == name {
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return s.Server.(catalog.DatabaseLocker).LockDatabase(ctx, name, l)
}

// TestFleetOneDatabaseIsBroken: a damaged database looks like a server that is
// down. The server's other tenants must not be left out for it.
func TestFleetOneDatabaseIsBroken(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	old := p.start(t, withSteps(steps{target: 1}))
	for i := range 3 {
		old.create(t, fmt.Sprint("t", i))
	}
	pr := p.start(t, withSteps(steps{target: 2}), func(cfg *catalog.Config) {
		cfg.Servers = map[string]catalog.Server{"s1": &poisoned{Server: cfg.Servers["s1"]}}
	})
	kinds := map[migrate.EventKind]int{}
	report, err := pr.run(migrate.Options{PerServer: 1, Attempts: 2, OnEvent: func(e migrate.Event) {
		kinds[e.Kind]++
		if e.Kind == migrate.EventDone {
			// The broken one is tried again after some seconds: they are over.
			old.exec(t, "UPDATE tenancy_tenants SET next_at = 0")
		}
	}}).end(t)
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Equal(t, 2, report.Done)
	require.Equal(t, 1, report.Failed)
	require.Contains(t, report.Tenants[0].Error, "connection reset")
	require.Zero(t, kinds[migrate.EventServerLeft])
	require.Equal(t, 1, kinds[migrate.EventFailed], "it is told once")
}

// TestFleetUnprintableError: what a migration says can be anything, and the main
// database can't keep all of that in a column of text.
func TestFleetUnprintableError(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	old := p.start(t, withSteps(steps{target: 1}))
	old.create(t, "a")
	old.create(t, "b")
	var once sync.Once
	pr := p.start(t, withSteps(steps{target: 2, before: func(context.Context, *sql.Tx, int64) (err error) {
		once.Do(func() { err = errors.New("bad row: \x00\x01\xff") })
		return err
	}}))
	report, err := pr.catalog.MigrateTenants(t.Context(), migrate.Options{PerServer: 1})
	require.ErrorIs(t, err, migrate.ErrIncomplete)
	require.Equal(t, 1, report.Done, "the others go on")
	require.Equal(t, 1, report.Failed)
	require.Contains(t, report.Tenants[0].Error, "bad row")
}

// halfDead is a TCP proxy whose connections can be dropped on the clients' side,
// while the server believes that they are well.
type halfDead struct {
	to string

	mu      sync.Mutex // guards the rest
	clients []*net.TCPConn
	servers []net.Conn
}

func startHalfDead(t *testing.T, to string) (h *halfDead, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h = &halfDead{to: to}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { h.serve(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		h.drop()
		h.mu.Lock()
		for _, s := range h.servers {
			_ = s.Close()
		}
		h.mu.Unlock()
		all.Wait()
	})
	return h, l.Addr().String()
}

func (h *halfDead) serve(c *net.TCPConn) {
	s, err := net.Dial("tcp", h.to)
	if err != nil {
		_ = c.Close()
		return
	}
	h.mu.Lock()
	h.clients, h.servers = append(h.clients, c), append(h.servers, s)
	h.mu.Unlock()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(c, s)
		_ = c.Close()
	}()
	if _, err := io.Copy(s, c); err == nil { // an orderly end; of any other the server does not hear
		_ = s.Close()
	}
	<-back
}

// drop resets the connections that there are.
func (h *halfDead) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.clients {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	h.clients = nil
}

// TestFleetConnectionsReset: the network resets the connections of all turns,
// and the server goes on to hold their locks. That is no reason to halt, nor to
// give the tenants up: who held the lock is ended, and they are tried again.
func TestFleetConnectionsReset(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	old := p.start(t, withSteps(steps{target: 1}))
	const tenants = 3 // as many as the breaker wants
	for i := range tenants {
		old.create(t, fmt.Sprint("t", i))
	}
	s := p.Servers["s1"]
	u, err := url.Parse(s.Admin)
	require.NoError(t, err)
	proxy, addr := startHalfDead(t, u.Host)
	s.Admin = strings.Replace(s.Admin, u.Host, addr, 1)
	p.Servers = map[string]target{"s1": s}

	var turns atomic.Int32
	dropped := make(chan struct{})
	pr := p.start(t, withSteps(steps{target: 2, before: func(ctx context.Context, tx *sql.Tx, _ int64) error {
		n := turns.Add(1)
		if n == tenants {
			proxy.drop()
			close(dropped)
		}
		if n <= tenants {
			<-dropped
		}
		_, err := tx.ExecContext(ctx, "SELECT 1")
		return err
	}}), func(cfg *catalog.Config) { cfg.Wait = time.Second })
	report, err := pr.run(migrate.Options{Backoff: 10 * time.Millisecond}).end(t)
	require.NoError(t, err, "%+v", report)
	for _, res := range report.Tenants {
		require.Equal(t, 2, res.Attempts, "%+v", res)
	}
	pr.allAt(t, 2)
}

// TestFleetCreateOfMigrated: Create of a tenant that is there returns it as it
// is, also while it is migrated: it is served meanwhile.
func TestFleetCreateOfMigrated(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	other := p.start(t, withSteps(steps{target: 1}), func(cfg *catalog.Config) { cfg.Wait = time.Second })
	other.create(t, "a")
	g := newGate()
	defer g.open()
	run := p.start(t, withSteps(steps{target: 2, before: g.pass})).run(migrate.Options{})
	wait(t, "its turn", g.reached)
	row := other.create(t, "a")
	require.EqualValues(t, 1, row.Version)
	g.open()
	_, err := run.end(t)
	require.NoError(t, err)
}
