package tenancypg

import (
	"context"
	"database/sql/driver"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// permit records what happens to it.
type permit struct {
	releases atomic.Int32
	released chan struct{}
	gone     atomic.Pointer[chan struct{}] // the connection's CleanupDone
	early    atomic.Bool                   // was released before it
}

func newPermit() *permit { return &permit{released: make(chan struct{})} }

func (p *permit) Release() {
	if gone := p.gone.Load(); gone != nil {
		select {
		case <-*gone:
		default:
			p.early.Store(true)
		}
	}
	if p.releases.Add(1) == 1 {
		close(p.released)
	}
}

// wait waits for the first release.
func (p *permit) wait(t testing.TB) {
	t.Helper()
	select {
	case <-p.released:
	case <-time.After(20 * time.Second):
		t.Fatal("the permit was not released")
	}
}

// check waits for the release, and fails on a second or an early one.
func (p *permit) check(t testing.TB) {
	t.Helper()
	p.wait(t)
	if n := p.releases.Load(); n != 1 {
		t.Errorf("%d releases", n)
	}
	if p.early.Load() {
		t.Error("the permit was released before CleanupDone")
	}
}

// permits gives every connection of a pool a permit of its own.
type permits struct {
	tenancy.PermitConnector
	mu  sync.Mutex
	all []*permit
}

func (c *permits) Connect(ctx context.Context) (driver.Conn, error) {
	p := newPermit()
	dc, err := c.ConnectPermit(ctx, p)
	if err != nil {
		return nil, err
	}
	gone := dc.(*conn).Conn().PgConn().CleanupDone()
	p.gone.Store(&gone)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, p)
	return dc, nil
}

// dialled returns the permit of the n-th connection.
func (c *permits) dialled(t testing.TB, n int) *permit {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) <= n {
		t.Fatalf("only %d connections were made", len(c.all))
	}
	return c.all[n]
}
