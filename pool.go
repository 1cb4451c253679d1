package tenancy

import (
	"database/sql"
	"database/sql/driver"
	"math"
	"math/rand/v2"
	"time"
)

// pool is one tenant's open database: a sql.DB on the tenant's dialer. The
// sql.DB keeps idle connections and ends them in time; how many there may be,
// and who waits for one, is the server's affair.
type pool struct {
	database Database // as resolved
	db       *sql.DB
	dialer   *dialer
	limit    int // of connections
}

// sweepConns is how many connections a turn in a sweep may have: one, and one
// more for a statement inside of an open Rows.
const sweepConns = 2

// newPool opens no connection: the first statement dials.
func newPool(tenant string, connector driver.Connector, engine Engine, s *server, database Database, limits Limits) *pool {
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
	return &pool{database: database, db: db, dialer: d, limit: limit}
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
}

func (p *pool) gone() <-chan struct{} { return p.dialer.gone }
func (p *pool) conns() int            { return int(p.dialer.open.Load()) }
func (p *pool) identity() any         { return p.database.identity() }

func (p *pool) narrow(on bool) {
	n := p.limit
	if on {
		n = min(n, sweepConns)
	}
	p.dialer.server.setLimit(p.dialer, n)
}
