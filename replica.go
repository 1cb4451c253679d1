package tenancy

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"
)

// replicaPause is how long a replica that failed is left alone. Then one read
// tries it.
const replicaPause = time.Second

// replica is one replica of a tenant: a sql.DB of its own, under the budget and
// the breaker of its own server. For a [dbresolver.Policy] it is a gorm.ConnPool
// to be chosen; it runs nothing as one.
type replica struct {
	at     int // in replicas.all
	db     *sql.DB
	dialer *dialer
	limit  int // of connections
	// retryAt is 0 as long as the replica answers, else when, by the clock of
	// its server, a read tries it again. Who moves it on is that read.
	retryAt atomic.Int64
}

// replicas are those of one tenant.
type replicas struct {
	all    []*replica
	pools  []gorm.ConnPool // the same, for the policy
	policy dbresolver.Policy
	count  *replicaCount
}

// replicaCount are the figures of all tenants' replicas.
type replicaCount struct{ reads, fallbacks atomic.Uint64 }

// verdict says what to do after a read on a replica.
type verdict uint8

const (
	verdictDone    verdict = iota // its outcome is the read's
	verdictNext                   // another replica may do better
	verdictPrimary                // the primary can do what no replica can
)

// add opens one replica more.
func (rs *replicas) add(tenant string, connector driver.Connector, engine Engine, s *server, d Database, limits Limits) {
	r := &replica{at: len(rs.all)}
	r.db, r.dialer = openConns(tenant, connector, engine, s, d, limits)
	r.limit = r.dialer.limit
	r.dialer.replica = true
	r.dialer.acquire = min(limits.AcquireTimeout, limits.ReplicaTimeout)
	s.mu.Lock()
	s.replicas++
	s.mu.Unlock()
	rs.all = append(rs.all, r)
	rs.pools = append(rs.pools, r)
}

// pick returns the replica for one read, or nil if the primary has to serve
// it. tried has the bits of those that have failed this read. probe says that the
// replica has failed before, and that this read finds out whether it is back.
func (rs *replicas) pick(tried uint64) (r *replica, probe bool, err error) {
	var usable uint64
	n := 0
	var last *replica
	for i, r := range rs.all {
		if tried&(1<<i) != 0 {
			continue
		}
		retryAt := r.retryAt.Load()
		if retryAt == 0 {
			usable |= 1 << i
			n++
			last = r
			continue
		}
		if now := r.clock(); now >= retryAt && r.retryAt.CompareAndSwap(retryAt, now+int64(replicaPause)) {
			return r, true, nil
		}
	}
	if n <= 1 {
		return last, false, nil
	}
	pools := rs.pools
	if n < len(rs.all) {
		pools = make([]gorm.ConnPool, 0, n)
		for i, pool := range rs.pools {
			if usable&(1<<i) != 0 {
				pools = append(pools, pool)
			}
		}
	}
	chosen, _ := rs.policy.Resolve(pools).(*replica)
	if chosen == nil || usable&(1<<chosen.at) == 0 || rs.all[chosen.at] != chosen {
		return nil, false, &Error{Op: "query", Tenant: last.dialer.tenant, Err: ErrUnavailable,
			Detail: "Config.ReplicaPolicy returned none of the pools that it was given",
			Hint:   "return one of them"}
	}
	return chosen, false, nil
}

// judge says what the outcome of a read on r means. Only a probe puts r back:
// other reads began before it failed, on connections of that time.
func (rs *replicas) judge(ctx context.Context, r *replica, probe bool, err error) verdict {
	if err == nil {
		rs.count.reads.Add(1)
		if probe {
			r.answered()
		}
		return verdictDone
	}
	if ctx.Err() != nil {
		return verdictDone // the caller's own end, which says nothing of r
	}
	v := verdictDone
	switch {
	case errors.Is(err, ErrPoolExhausted):
		v = verdictNext // it is busy, not down
	case errors.As(err, new(hurriedError)):
		v = verdictNext // nor is this about it
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrWrongDatabase):
		v = verdictNext
		r.failed(err)
	default:
		switch r.dialer.faultOf(err) {
		case FaultServer, FaultTenant:
			v = verdictNext
			r.failed(err)
		case FaultSaturation:
			v = verdictNext
		default:
			if probe {
				r.answered()
			}
			if e, ok := r.dialer.engine.(ReplicaEngine); ok && e.ReplicaRefused(err) {
				v = verdictPrimary
			}
		}
	}
	if v != verdictDone {
		rs.count.fallbacks.Add(1)
	}
	return v
}

// hurriedError is that of a caller who had less time for a connection than
// connecting may well take.
type hurriedError struct{ error }

func (e hurriedError) Unwrap() error { return e.error }

func (r *replica) clock() int64 { return int64(r.dialer.server.clock()) + 1 } // never 0

// failed leaves r alone for a while.
func (r *replica) failed(err error) {
	if r.retryAt.Swap(r.clock()+int64(replicaPause)) == 0 {
		r.tell(EventReplicaDown, err)
	}
}

// answered puts r back into service.
func (r *replica) answered() {
	if r.retryAt.Swap(0) != 0 {
		r.tell(EventReplicaUp, nil)
	}
}

func (r *replica) tell(kind EventKind, err error) {
	d := r.dialer
	d.server.observe(Event{Kind: kind, Tenant: d.tenant, Server: d.server.name, Replica: true, Err: err})
}

// faultOf says whose fault the error of a statement is.
func (d *dialer) faultOf(err error) Fault {
	if d.engine != nil {
		return d.engine.Classify(err)
	}
	var netErr net.Error
	if errors.As(err, &netErr) || errors.Is(err, io.ErrUnexpectedEOF) {
		return FaultServer
	}
	return FaultNone
}

// Server returns the name of the replica's server, for policies.
func (r *replica) Server() string { return r.dialer.server.name }

// The rest makes a replica a gorm.ConnPool that runs nothing: a policy is to
// choose, and whoever kept its choice would get past the lease and the checks.

func (r *replica) refuse() error {
	return &Error{Op: "replica", Tenant: r.dialer.tenant, Err: ErrTenantMismatch,
		Detail: "what a ReplicaPolicy chooses from runs no statements of its own",
		Hint:   "use db.Clauses(dbresolver.Read) for a statement on a replica"}
}

func (r *replica) PrepareContext(context.Context, string) (*sql.Stmt, error) { return nil, r.refuse() }

func (r *replica) ExecContext(context.Context, string, ...any) (sql.Result, error) {
	return nil, r.refuse()
}

func (r *replica) QueryContext(context.Context, string, ...any) (*sql.Rows, error) {
	return nil, r.refuse()
}

func (r *replica) QueryRowContext(context.Context, string, ...any) *sql.Row {
	return errRow(r.refuse())
}

// maxReplicas is how many bits the sets of replicas.pick have.
const maxReplicas = 64

// validateReplicas finds what the Replicas of d must not say.
func (d Database) validateReplicas() error {
	if len(d.Replicas) > maxReplicas {
		return fmt.Errorf("its Database has %d Replicas; %d are the most", len(d.Replicas), maxReplicas)
	}
	for i, r := range d.Replicas {
		switch {
		case r.Identity != (Identity{}) || r.Version != "" || r.Schema != 0 || len(r.Replicas) > 0:
			return fmt.Errorf("its Database.Replicas[%d] sets more than DSN or Connector, Server and MaxConns; the rest is the primary's", i)
		case r.DSN == "" && r.Connector == nil:
			return fmt.Errorf("its Database.Replicas[%d] has neither a DSN nor a Connector", i)
		case r.DSN != "" && r.Connector != nil:
			return fmt.Errorf("its Database.Replicas[%d] has a DSN and a Connector; set one of them", i)
		case r.MaxConns < 0:
			return fmt.Errorf("its Database.Replicas[%d].MaxConns is negative: %d", i, r.MaxConns)
		}
	}
	return nil
}

// sameReplicas reports whether a and b are the same, in whatever order: a
// Resolver may list them as they come.
func sameReplicas(a, b []Database) bool {
	if len(a) != len(b) {
		return false
	}
	rest := slices.Clone(b)
	for _, r := range a {
		i := slices.IndexFunc(rest, func(other Database) bool { return !r.changed(other) })
		if i < 0 {
			return false
		}
		rest = slices.Delete(rest, i, i+1)
	}
	return true
}

// places are what tells d's databases from other tenants': equal ones are
// certainly the same database. The primary and its replicas are one, and may
// repeat.
func (d Database) places() []any {
	var all []any
	add := func(place any) {
		if place != nil && !slices.Contains(all, place) {
			all = append(all, place)
		}
	}
	add(d.place())
	if d.Identity.UID == "" {
		for _, r := range d.Replicas {
			add(r.place())
		}
	}
	return all
}
