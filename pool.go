package tenancy

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorm-tenancy/tenancy/internal/driverwrap"
)

// pool is one tenant's open database: a sql.DB on the tenant's connector, and
// the count of its physical connections, which sql.DB.Stats can't give after
// Close (it loses those that were being dialled).
type pool struct {
	database Database // as resolved
	db       *sql.DB
	dialer   *dialer
}

// newPool opens no connection: the first statement dials, under its own ctx.
func newPool(connector driver.Connector, database Database, limits Limits) *pool {
	d := &dialer{connector: connector, gone: make(chan struct{})}
	db := sql.OpenDB(d)
	n := limits.MaxConnsPerTenant
	if database.MaxConns > 0 {
		n = database.MaxConns
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n) // the default of 2 would dial anew in every burst
	db.SetConnMaxIdleTime(limits.ConnMaxIdleTime)
	db.SetConnMaxLifetime(jitter(limits.ConnMaxLifetime))
	return &pool{database: database, db: db, dialer: d}
}

// jitter spreads d by 10 % to each side, so that the connections of many pools
// opened together don't all end together.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

func (p *pool) retire() {
	p.dialer.refuse()
	// sql.DB.Close may take seconds per connection to a server that hangs.
	go func() {
		_ = p.db.Close()
		p.dialer.closed()
	}()
}

func (p *pool) gone() <-chan struct{} { return p.dialer.gone }
func (p *pool) conns() int            { return int(p.dialer.open.Load()) }
func (p *pool) identity() any         { return p.database.identity() }

// dialer is the driver.Connector of one sql.DB. It counts the physical
// connections, from before each dial until the connection is truly gone.
type dialer struct {
	connector driver.Connector
	open      atomic.Int64 // written under mu, read without
	refused   atomic.Bool  // no dial begins any more; likewise

	mu    sync.Mutex
	shut  bool // sql.DB.Close has returned
	ended bool
	gone  chan struct{} // closed when shut and nothing is open
}

var errRetired = errors.New("tenancy: the pool has been retired")

// Connect is called by database/sql.
func (d *dialer) Connect(ctx context.Context) (driver.Conn, error) {
	d.mu.Lock()
	if d.refused.Load() {
		d.mu.Unlock()
		return nil, errRetired
	}
	d.open.Add(1)
	d.mu.Unlock()

	p := &permit{dialer: d}
	if pc, ok := d.connector.(PermitConnector); ok {
		conn, err := pc.ConnectPermit(ctx, p)
		if err != nil {
			p.Release()
			return nil, err
		}
		return conn, nil
	}
	conn, err := d.connector.Connect(ctx)
	if err != nil {
		p.Release()
		return nil, err
	}
	return driverwrap.Conn(conn, p.Release, p.Yield), nil
}

func (d *dialer) Driver() driver.Driver { return d.connector.Driver() }

func (d *dialer) refuse() {
	d.mu.Lock()
	d.refused.Store(true)
	d.mu.Unlock()
}

func (d *dialer) closed() {
	d.mu.Lock()
	d.shut = true
	d.endLocked()
	d.mu.Unlock()
}

func (d *dialer) endLocked() {
	if d.shut && d.open.Load() == 0 && !d.ended {
		d.ended = true
		close(d.gone)
	}
}

// permit accounts for one connection of a dialer.
type permit struct {
	dialer *dialer
	once   sync.Once
}

func (p *permit) Release() {
	p.once.Do(func() {
		d := p.dialer
		d.mu.Lock()
		d.open.Add(-1)
		d.endLocked()
		d.mu.Unlock()
	})
}

// Yield is true once the pool is retired: a connection that comes back is then
// closed by database/sql anyway.
func (p *permit) Yield() bool { return p.dialer.refused.Load() }
