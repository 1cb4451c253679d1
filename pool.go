package tenancy

import (
	"database/sql"
	"database/sql/driver"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// pool is one tenant's open database: a sql.DB on the tenant's dialer. The
// sql.DB keeps idle connections and ends them in time; how many there may be,
// and who waits for one, is the server's affair.
type pool struct {
	database Database // as resolved
	db       *sql.DB
	dialer   *dialer
	limit    int           // of connections
	replicas *replicas     // nil without
	left     chan struct{} // with replicas: closed when nothing is left of all
	retired  sync.Once
}

// sweepConns is how many connections a turn in a sweep may have: one, and one
// more for a statement inside of an open Rows.
const sweepConns = 2

// newPool opens no connection: the first statement dials.
func newPool(tenant string, connector driver.Connector, engine Engine, s *server, database Database, limits Limits) *pool {
	db, d := openConns(tenant, connector, engine, s, database, limits)
	return &pool{database: database, db: db, dialer: d, limit: d.limit}
}

// openConns makes the sql.DB of one database of a tenant, on the server s.
func openConns(tenant string, connector driver.Connector, engine Engine, s *server, database Database, limits Limits) (*sql.DB, *dialer) {
	limit := limits.MaxConnsPerTenant
	if database.MaxConns > 0 {
		limit = database.MaxConns
	}
	lifetime := jitter(limits.ConnMaxLifetime)
	d := &dialer{
		tenant:    tenant,
		connector: connector,
		identity:  database.Identity,
		stale:     func() {},
		engine:    engine,
		server:    s,
		lifetime:  lifetime,
		gone:      make(chan struct{}),
		limit:     limit,
		acquire:   s.acquire,
	}
	db := sql.OpenDB(d)
	// No limit: at a limit of its own database/sql makes callers wait where no
	// deadline of ours reaches, and wakes them in no order.
	db.SetMaxOpenConns(0)
	// All that come back are kept. There are no more than the dialer's limit,
	// and some that were taken away and don't count.
	db.SetMaxIdleConns(math.MaxInt)
	db.SetConnMaxIdleTime(limits.ConnMaxIdleTime)
	db.SetConnMaxLifetime(lifetime)
	return db, d
}

// jitter spreads d by 10 % to each side, so that the connections of many pools
// opened together don't all end together.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}

func (p *pool) retire() {
	p.dialer.retire()
	// sql.DB.Close may take seconds per connection to a server that hangs.
	go p.db.Close()
	if p.replicas == nil {
		return
	}
	for _, r := range p.replicas.all {
		r.dialer.retire()
		go r.db.Close()
	}
	p.retired.Do(func() {
		go func() {
			<-p.dialer.gone
			for _, r := range p.replicas.all {
				<-r.dialer.gone
			}
			close(p.left)
		}()
	})
}

func (p *pool) gone() <-chan struct{} {
	if p.replicas != nil {
		return p.left
	}
	return p.dialer.gone
}

func (p *pool) conns() int {
	n := p.dialer.open.Load()
	if p.replicas != nil {
		for _, r := range p.replicas.all {
			n += r.dialer.open.Load()
		}
	}
	return int(n)
}

func (p *pool) places() []any { return p.database.places() }

func (p *pool) narrow(on bool) {
	p.dialer.narrow(p.limit, on)
	if p.replicas != nil {
		for _, r := range p.replicas.all {
			r.dialer.narrow(r.limit, on)
		}
	}
}

func (d *dialer) narrow(limit int, on bool) {
	if on {
		limit = min(limit, sweepConns)
	}
	d.server.setLimit(d, limit)
}
