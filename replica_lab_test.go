package tenancy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"
)

// replicated is a tenant's pool with two replicas, each on its own server. The
// lab knows the three as p, r1 and r2.
func (l *lab) replicated(limit int) *pool {
	p := newPool("p", &labConnector{l, "p"}, labEngine{}, l.join("p"), Database{MaxConns: limit}, l.limits)
	p.left = make(chan struct{})
	p.replicas = &replicas{count: new(replicaCount), policy: dbresolver.PolicyFunc(
		func(pools []gorm.ConnPool) gorm.ConnPool { return pools[0] })}
	for _, name := range []string{"r1", "r2"} {
		p.replicas.add("p", &labConnector{l, name}, labEngine{}, l.join(name), Database{MaxConns: limit}, l.limits)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pools = append(l.pools, p)
	return p
}

// read runs one read, as a reader does, and returns where it ended.
func read(ctx context.Context, p *pool) (where string, err error) {
	for t := (turn{rs: p.replicas}); ; {
		db, err := t.next(&entry{pool: p})
		if err != nil {
			return "", err
		}
		where = "p"
		if t.on != nil {
			where = t.on.Server()
		}
		_, err = db.ExecContext(ctx, "read")
		if !t.again(ctx, err) {
			return where, err
		}
	}
}

func requireRead(t *testing.T, want string, p *pool) {
	t.Helper()
	where, err := read(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, want, where)
}

// A fault of a replica's server: how it shows, what the read that meets it
// gets, and how the replica comes back.
func TestReplicaFallback(t *testing.T) {
	for name, fault := range map[string]error{"server": errLabDown, "tenant": errLabMissing} {
		for _, on := range []string{"dial", "statement"} {
			t.Run(name+" at "+on, func(t *testing.T) {
				inLab(t, Limits{}, func(t *testing.T, l *lab) {
					p := l.replicated(2)
					broken := map[string]bool{"r1": true}
					fail := func(_ context.Context, name string) error {
						if broken[name] {
							return fault
						}
						return nil
					}
					if on == "dial" {
						l.dial = fail
					} else {
						requireRead(t, "r1", p) // it has connections
						l.exec = fail
					}
					requireRead(t, "r2", p)
					require.Equal(t, []Event{{Kind: EventReplicaDown, Tenant: "p", Server: "r1", Replica: true, Err: l.of(EventReplicaDown)[0].Err}}, l.of(EventReplicaDown))
					require.ErrorIs(t, l.of(EventReplicaDown)[0].Err, fault)

					dials := l.dialled()
					for range 5 { // it is left alone
						requireRead(t, "r2", p)
					}
					require.LessOrEqual(t, l.dialled()-dials, 1)

					broken["r2"] = true
					if on == "dial" { // it has a connection
						p.replicas.all[1].db.SetMaxIdleConns(-1)
						p.replicas.all[1].db.SetMaxIdleConns(9)
					}
					requireRead(t, "p", p)
					require.Len(t, l.of(EventReplicaDown), 2)

					time.Sleep(5 * time.Second) // also until a database that refused is asked again
					requireRead(t, "p", p)
					require.Len(t, l.of(EventReplicaDown), 2, "told once")
					require.Empty(t, l.of(EventReplicaUp))

					broken = nil
					time.Sleep(6 * time.Second)
					requireRead(t, "r1", p)
					requireRead(t, "r2", p) // tries it
					requireRead(t, "r1", p)
					require.Equal(t, []Event{
						{Kind: EventReplicaUp, Tenant: "p", Server: "r1", Replica: true},
						{Kind: EventReplicaUp, Tenant: "p", Server: "r2", Replica: true},
					}, l.of(EventReplicaUp))
				})
			})
		}
	}
}

// Of many reads at once, one tries a replica that was down.
func TestReplicaProbe(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(4)
		l.dial = func(ctx context.Context, name string) error {
			if name == "r1" { // a host that is silent
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		began := time.Now()
		requireRead(t, "r2", p)
		require.Equal(t, time.Second, time.Since(began).Truncate(100*time.Millisecond), "Limits.ReplicaTimeout")
		began = time.Now()
		requireRead(t, "r2", p)
		require.Less(t, time.Since(began), 100*time.Millisecond)

		time.Sleep(replicaPause)
		slow := make(chan bool, 20)
		for range cap(slow) {
			go func() {
				began := time.Now()
				where, err := read(t.Context(), p)
				if err != nil || where != "r2" {
					t.Errorf("%s, %v", where, err)
				}
				slow <- time.Since(began) > replicaPause/2
			}()
		}
		n := 0
		for range cap(slow) {
			if <-slow {
				n++
			}
		}
		require.Equal(t, 1, n)
		require.Equal(t, 1, len(l.of(EventReplicaDown)))
	})
}

// A read that began before the replica failed does not put it back.
func TestReplicaFlapping(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(4)
		requireRead(t, "r1", p) // it has one connection, and gets no more
		l.dial = func(_ context.Context, name string) error {
			if name == "r1" {
				return errLabDown
			}
			return nil
		}
		for range 20 {
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() {
					if _, err := read(t.Context(), p); err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()
		}
		require.Len(t, l.of(EventReplicaDown), 1)
		require.Empty(t, l.of(EventReplicaUp))
		time.Sleep(replicaPause)
		requireRead(t, "r1", p) // tries it
		require.Len(t, l.of(EventReplicaUp), 1)
	})
}

// A read with little time keeps some for the primary.
func TestReplicaDeadline(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(4)
		l.dial = func(ctx context.Context, name string) error {
			if name != "p" {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer cancel()
		where, err := read(ctx, p)
		require.NoError(t, err)
		require.Equal(t, "p", where)
		require.Len(t, l.of(EventReplicaDown), 2)
	})
}

// A caller with very little time says nothing of a replica that takes some to
// connect.
func TestReplicaHurried(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(2)
		l.dial = func(ctx context.Context, name string) error {
			if name != "p" {
				time.Sleep(20 * time.Millisecond)
			}
			return ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		where, err := read(ctx, p)
		require.NoError(t, err)
		require.Equal(t, "p", where)
		require.Empty(t, l.of(EventReplicaDown))

		l.dial = func(context.Context, string) error { return errLabDown } // told at once, it counts
		p = l.replicated(2)
		ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		_, err = read(ctx, p)
		require.ErrorIs(t, err, errLabDown)
		require.Len(t, l.of(EventReplicaDown), 2)
	})
}

func TestSameReplicas(t *testing.T) {
	a, b, c := Database{DSN: "a"}, Database{DSN: "b"}, Database{Connector: &labConnector{}}
	for _, tt := range []struct {
		one, other []Database
		want       bool
	}{
		{nil, nil, true},
		{[]Database{a, b, c}, []Database{c, a, b}, true},
		{[]Database{a, a, b}, []Database{a, b, a}, true},
		{[]Database{a, a, b}, []Database{a, b, b}, false},
		{[]Database{a, b}, []Database{a}, false},
		{[]Database{a}, []Database{{DSN: "a", MaxConns: 1}}, false},
		{[]Database{a}, []Database{{DSN: "a", Server: "s"}}, false},
		{[]Database{a}, []Database{c}, false},
	} {
		require.Equal(t, tt.want, sameReplicas(tt.one, tt.other), "%v %v", tt.one, tt.other)
		require.Equal(t, tt.want, sameReplicas(tt.other, tt.one), "%v %v", tt.other, tt.one)
		require.Equal(t, tt.want, !Database{DSN: "p", Replicas: tt.one}.changed(Database{DSN: "p", Replicas: tt.other}))
	}
}

// Errors that say nothing of the replica are the caller's.
func TestReplicaErrors(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(2)
		var where string
		syntax := errors.New("syntax error")
		var fail error
		l.exec = func(ctx context.Context, name string) error {
			where += name + " "
			if name == "p" {
				return nil
			}
			return fail
		}
		for _, tc := range []struct {
			err, want error
			where     string
		}{
			{syntax, syntax, "r1 "},
			{errLabWrites, nil, "r1 p "}, // no other replica can do better
			{errLabFull, nil, "r1 r2 p "},
		} {
			where, fail = "", tc.err
			_, err := read(t.Context(), p)
			require.ErrorIs(t, err, tc.want)
			require.Equal(t, tc.where, where)
		}
		require.Empty(t, l.of(EventReplicaDown))

		where, fail = "", errLabDown
		ctx, cancel := context.WithCancel(t.Context())
		l.exec = func(context.Context, string) error { cancel(); return errLabDown }
		_, err := read(ctx, p)
		require.ErrorIs(t, err, errLabDown)
		require.Empty(t, l.of(EventReplicaDown), "the caller's own end")

		l.exec = func(context.Context, string) error { return errLabDown }
		got, err := read(t.Context(), p)
		require.ErrorIs(t, err, errLabDown)
		require.Equal(t, "p", got)
	})
}

// A replica whose connections are all in use is not down: others serve what it
// has no room for.
func TestReplicaBusy(t *testing.T) {
	inLab(t, Limits{ReplicaTimeout: 300 * time.Millisecond}, func(t *testing.T, l *lab) {
		p := l.replicated(1)
		conn, err := p.replicas.all[0].db.Conn(t.Context())
		require.NoError(t, err)
		began := time.Now()
		requireRead(t, "r2", p)
		require.Equal(t, 300*time.Millisecond, time.Since(began).Truncate(10*time.Millisecond))
		require.Empty(t, l.of(EventReplicaDown))
		waited := l.of(EventWaited)
		require.Len(t, waited, 1)
		require.True(t, waited[0].Replica)
		require.Equal(t, "r1", waited[0].Server)
		require.NoError(t, conn.Close())
		requireRead(t, "r1", p)
	})
}

// A replica's server that has no connection left is busy, not down.
func TestReplicaSaturated(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(2)
		l.dial = func(_ context.Context, name string) error {
			if name == "r1" {
				return errLabFull
			}
			return nil
		}
		requireRead(t, "r2", p)
		require.Empty(t, l.of(EventReplicaDown))
	})
}

// A pool is gone when its replicas' connections are, too.
func TestReplicaRetired(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(4)
		requireRead(t, "r1", p)
		require.Equal(t, 1, p.conns())
		conn, err := p.replicas.all[1].db.Conn(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, p.conns())
		p.retire()
		p.retire() // by whoever else has it
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, p.conns())
		select {
		case <-p.gone():
			t.Fatal("gone while a connection is in use")
		default:
		}
		require.NoError(t, conn.Close())
		<-p.gone()
		require.Zero(t, p.conns())
	})
}

// A replica counts on its own server, and a turn in a sweep gets few of its
// connections too.
func TestReplicaServers(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(4)
		requireRead(t, "r1", p)
		stats := map[string]ServerStats{}
		for _, s := range l.servers.all() {
			stats[s.name] = s.stats()
		}
		require.Equal(t, 1, stats["r1"].Conns)
		require.Equal(t, 1, stats["r1"].Replicas)
		require.Equal(t, 1, stats["r1"].Pools)
		require.Zero(t, stats["p"].Conns)
		require.Zero(t, stats["p"].Replicas)

		p.narrow(true)
		require.Equal(t, sweepConns, p.replicas.all[0].dialer.stats().MaxConns)
		p.narrow(false)
		require.Equal(t, 4, p.replicas.all[0].dialer.stats().MaxConns)
		p.retire()
		<-p.gone()
		for _, s := range l.servers.all() {
			require.Zero(t, s.stats().Replicas)
			require.Zero(t, s.stats().Pools)
		}
	})
}

// A policy chooses, and does nothing else.
func TestReplicaPolicy(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p, other := l.replicated(2), l.replicated(2)
		var seen []gorm.ConnPool
		choose := func(pools []gorm.ConnPool) gorm.ConnPool { return pools[0] }
		p.replicas.policy = dbresolver.PolicyFunc(func(pools []gorm.ConnPool) gorm.ConnPool {
			seen = slices.Clone(pools)
			return choose(pools)
		})
		requireRead(t, "r1", p)
		require.Len(t, seen, 2)
		for i, pool := range seen {
			require.Equal(t, []string{"r1", "r2"}[i], pool.(interface{ Server() string }).Server())
			_, err := pool.ExecContext(t.Context(), "x")
			require.ErrorIs(t, err, ErrTenantMismatch)
			_, err = pool.QueryContext(t.Context(), "x")
			require.ErrorIs(t, err, ErrTenantMismatch)
			_, err = pool.PrepareContext(t.Context(), "x")
			require.ErrorIs(t, err, ErrTenantMismatch)
			require.ErrorIs(t, pool.QueryRowContext(t.Context(), "x").Err(), ErrTenantMismatch)
		}
		for name, bad := range map[string]gorm.ConnPool{
			"none": nil, "another's": other.replicas.pools[0], "a sql.DB": p.db, "the replica's own": p.replicas.all[0].db, "nothing": (*replica)(nil), "a zero one": &replica{},
		} {
			choose = func([]gorm.ConnPool) gorm.ConnPool { return bad }
			_, err := read(t.Context(), p)
			require.ErrorContains(t, err, "Config.ReplicaPolicy returned none of the pools", name)
		}
		p.replicas.all[1].failed(errLabDown) // one that is down is not offered
		seen = nil
		requireRead(t, "r1", p)
		require.Nil(t, seen, "no choice")
	})
}

// Each of dbresolver's policies that are safe for several goroutines.
func TestReplicaPolicies(t *testing.T) {
	inLab(t, Limits{}, func(t *testing.T, l *lab) {
		p := l.replicated(2)
		p.replicas.policy = dbresolver.StrictRoundRobinPolicy()
		count := map[string]int{}
		for range 10 {
			where, err := read(t.Context(), p)
			require.NoError(t, err)
			count[where]++
		}
		require.Equal(t, map[string]int{"r1": 5, "r2": 5}, count)
		p.replicas.policy = dbresolver.RandomPolicy{}
		clear(count)
		for range 100 {
			where, err := read(t.Context(), p)
			require.NoError(t, err)
			count[where]++
		}
		require.Len(t, count, 2)
	})
}
