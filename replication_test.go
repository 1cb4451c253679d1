package tenancy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/plugin/dbresolver"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// letter is what each tenant writes: its own name is in each.
type letter struct {
	ID   uint
	Text string
}

// replication is a primary with two standbys, that stream for real, and an
// application whose tenants are on them.
type replication struct {
	t               *testing.T
	primary, r1, r2 *pgtest.Cluster
	main            string
	databases       map[string]string // by tenant
	place           atomic.Pointer[func(database string) tenancy.Database]
	events          eventLog
	db              *gorm.DB
	plugin          *tenancy.Plugin
	written         map[string]*atomic.Int64 // letters that were acknowledged
}

func newReplication(t *testing.T) *replication {
	logs := pgtest.Setting("log_statement", "all")
	r := &replication{t: t, primary: pgtest.Start(t, logs, pgtest.MaxConns(60)), databases: map[string]string{}, written: map[string]*atomic.Int64{}}
	shared := pgtest.Shared(t)
	r.main = shared.DSN(shared.CreateDatabase(t))
	for _, id := range []string{idA, idB} {
		name := r.primary.CreateDatabase(t)
		r.databases[id], r.written[id] = name, new(atomic.Int64)
		r.primary.Exec(t, name, `CREATE TABLE letters (id bigserial PRIMARY KEY, text text NOT NULL);
			CREATE TABLE _tenant_meta (uid text NOT NULL, generation bigint NOT NULL, catalog text)`)
		r.primary.Exec(t, name, "INSERT INTO _tenant_meta VALUES ($1, 1)", "u-"+id)
	}
	r.r1, r.r2 = r.primary.Standby(t), r.primary.Standby(t)
	r.at("1", r.primary, r.r1, r.r2)
	r.db, r.plugin = r.app(dbresolver.StrictRoundRobinPolicy())
	return r
}

// app is one process of the application.
func (r *replication) app(policy dbresolver.Policy) (*gorm.DB, *tenancy.Plugin) {
	r.t.Helper()
	db, err := gorm.Open(postgres.Open(r.main), &gorm.Config{Logger: logger.Discard})
	require.NoError(r.t, err)
	plugin := tenancy.New(tenancy.Config{
		Engine: tenancypg.Engine{},
		Resolver: tenancy.ResolverFunc(func(_ context.Context, id string) (tenancy.Database, error) {
			name, ok := r.databases[id]
			if !ok {
				return tenancy.Database{}, tenancy.ErrTenantNotFound
			}
			d := (*r.place.Load())(name)
			d.Identity = tenancy.Identity{UID: "u-" + id, Generation: 1}
			return d, nil
		}),
		ReplicaPolicy: policy,
		Observer:      &r.events,
	})
	require.NoError(r.t, db.Use(plugin))
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := plugin.Close(ctx); err != nil {
			r.t.Error(err)
		}
		if pool, err := db.DB(); err == nil {
			_ = pool.Close()
		}
	})
	return db, plugin
}

// at tells the resolver where the tenants are from now on.
func (r *replication) at(version string, primary *pgtest.Cluster, replicas ...*pgtest.Cluster) {
	place := func(database string) tenancy.Database {
		d := tenancy.Database{DSN: primary.DSN(database), Version: version}
		for _, c := range replicas {
			d.Replicas = append(d.Replicas, tenancy.Database{DSN: c.DSN(database)})
		}
		return d
	}
	r.place.Store(&place)
}

// in is db for the tenant. No statement of the test takes longer.
func (r *replication) in(id string) *gorm.DB {
	ctx, cancel := context.WithTimeout(tenant.Ctx(context.Background(), id), 20*time.Second)
	r.t.Cleanup(cancel)
	return r.db.WithContext(ctx)
}

// session is one request of a tenant: it writes a letter, reads it back with
// Write, and lists what there is from wherever reads go.
func (r *replication) session(id string) error {
	l := letter{Text: fmt.Sprintf("%s %d", id, r.written[id].Load())}
	if err := r.in(id).Create(&l).Error; err != nil {
		return fmt.Errorf("write: %w", err)
	}
	r.written[id].Add(1)
	var back letter
	if err := r.in(id).Clauses(dbresolver.Write).First(&back, l.ID).Error; err != nil {
		return fmt.Errorf("a write's own session has lost its letter: %w", err)
	}
	if back != l {
		return fmt.Errorf("wrote %+v, read %+v", l, back)
	}
	return r.list(id)
}

// list reads as most of an application does: nothing in it says where.
func (r *replication) list(id string) error {
	var all []letter
	if err := r.in(id).Find(&all).Error; err != nil {
		return fmt.Errorf("read: %w", err)
	}
	for _, l := range all {
		if !strings.HasPrefix(l.Text, id+" ") {
			return fmt.Errorf("tenant %s has read %q", id, l.Text)
		}
	}
	return nil
}

// work runs n sessions of each tenant, four at a time, while during runs.
func (r *replication) work(n int, during func()) {
	r.t.Helper()
	var wg sync.WaitGroup
	for i := range 4 {
		id := []string{idA, idB}[i%2]
		wg.Go(func() {
			for range n {
				if err := r.session(id); err != nil {
					r.t.Error(err)
					return
				}
			}
		})
	}
	if during != nil {
		during()
	}
	wg.Wait()
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// count reads the letters of the tenant on one server, raw.
func (r *replication) count(c *pgtest.Cluster, id string) (n int64) {
	r.t.Helper()
	require.NoError(r.t, c.Conn(r.t, r.databases[id]).QueryRow(r.t.Context(), "SELECT count(*) FROM letters").Scan(&n))
	return n
}

// pure checks, by a server's own log, that it was asked to write nothing.
func (r *replication) pure(c *pgtest.Cluster) {
	r.t.Helper()
	for _, line := range strings.Split(c.Log(), "\n") {
		if strings.Contains(line, "'acme on a replica'") {
			continue // failOver's own attempt, which is refused
		}
		if strings.Contains(line, "INSERT INTO") || strings.Contains(line, "UPDATE ") || strings.Contains(line, "DELETE ") {
			r.t.Fatalf("a replica was asked to write: %s", line)
		}
	}
}

// One replica dies and comes back, one lags, the primary moves to a standby:
// the application goes on, nobody loses what it wrote, nobody sees another
// tenant's, and no replica is written to.
func TestReplication(t *testing.T) {
	r := newReplication(t)

	// All is well: reads go to the replicas, each in its turn.
	r.work(20, nil)
	s := r.plugin.Stats()
	require.EqualValues(t, 80, s.ReplicaReads)
	require.Zero(t, s.ReplicaFallbacks)
	for _, c := range []*pgtest.Cluster{r.r1, r.r2} {
		require.Equal(t, 40, strings.Count(c.Log(), `SELECT * FROM "letters"`))
	}

	// One is killed while it is read.
	r.work(60, r.r1.Kill)
	require.NotEmpty(t, r.events.of(tenancy.EventReplicaDown))
	for _, e := range r.events.of(tenancy.EventReplicaDown) {
		require.Equal(t, r.r1.Addr(), e.Server)
		require.True(t, e.Replica)
	}
	require.Empty(t, r.events.of(tenancy.EventReplicaUp))
	require.NotZero(t, r.plugin.Stats().ReplicaFallbacks)
	r.work(20, r.r1.Restart)
	require.Eventually(t, func() bool { // back by itself, for both tenants
		require.NoError(t, r.list(idA))
		require.NoError(t, r.list(idB))
		back := map[string]bool{}
		for _, e := range r.events.of(tenancy.EventReplicaUp) {
			back[e.Tenant] = true
		}
		return len(back) == 2
	}, 30*time.Second, 20*time.Millisecond)

	// One lags: who reads from there sees the past, who asks for Write does not.
	r.r2.PauseReplay(t)
	before := r.count(r.r2, idA)
	r.work(20, nil)
	require.Equal(t, before, r.count(r.r2, idA))
	var old, now int64
	require.Eventually(t, func() bool {
		require.NoError(t, r.in(idA).Model(&letter{}).Count(&old).Error)
		return old == before
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, r.in(idA).Clauses(dbresolver.Write).Model(&letter{}).Count(&now).Error)
	require.Equal(t, r.written[idA].Load(), now)

	// A migration: what is not there yet on the one that lags, the primary has.
	for _, id := range []string{idA, idB} {
		require.NoError(t, r.in(id).Exec("ALTER TABLE letters ADD COLUMN colour text DEFAULT 'blue'").Error)
	}
	r.at("1, migrated", r.primary, r.r1, r.r2)
	for _, id := range []string{idA, idB} {
		require.True(t, r.plugin.Evict(id))
	}
	for range 4 {
		var colour string
		require.NoError(t, r.in(idA).Raw("SELECT colour FROM letters LIMIT 1").Scan(&colour).Error)
		require.Equal(t, "blue", colour)
		require.NoError(t, r.list(idA))
	}
	r.r2.ResumeReplay(t) // and the plans of its connections are out of date
	r.r2.Follow(t, r.primary)
	for range 8 {
		require.NoError(t, r.list(idA))
	}

	// A function that writes: a SELECT, by its text.
	require.NoError(t, r.in(idA).Exec(`CREATE FUNCTION send(text) RETURNS bigint LANGUAGE sql AS 'INSERT INTO letters (text) VALUES ($1) RETURNING id'`).Error)
	r.r1.Follow(t, r.primary)
	r.r2.Follow(t, r.primary)
	var id int64
	require.NoError(t, r.in(idA).Raw("SELECT send(?)", "acme by a function").Scan(&id).Error)
	r.written[idA].Add(1)
	require.NoError(t, r.in(idA).Clauses(dbresolver.Write).First(&letter{}, id).Error)

	r.failOver()
}

// failOver ends the primary, and makes the first standby one.
func (r *replication) failOver() {
	t := r.t
	r.r1.Follow(t, r.primary)
	r.r2.Follow(t, r.primary)
	stale, stalePlugin := r.app(dbresolver.RandomPolicy{}) // a process that nobody tells
	require.NoError(t, stale.WithContext(tenant.Ctx(t.Context(), idA)).Find(&[]letter{}).Error)
	staleWrote := r.written[idA].Load()

	r.primary.Kill()
	for _, id := range []string{idA, idB} {
		require.NoError(t, r.list(id), "reads go on")
		require.Error(t, r.in(id).Create(&letter{Text: id + " lost"}).Error)
		require.Error(t, r.in(id).Clauses(dbresolver.Write).First(&letter{}).Error)
	}
	r.pure(r.r1)
	r.r1.Promote(t)
	r.r2.StreamFrom(t, r.r1)

	// Nobody has told the application. What it holds of the new primary are a
	// replica's connections, and still can't write.
	var n int64
	for range 6 {
		err := r.in(idA).Clauses(dbresolver.Read).Raw("INSERT INTO letters (text) VALUES ('acme on a replica') RETURNING id").Scan(&n).Error
		require.Error(t, err)
		require.Error(t, r.in(idA).Raw("SELECT send('acme on a replica')").Scan(&n).Error)
	}
	require.Equal(t, staleWrote, r.count(r.r1, idA))

	r.at("2", r.r1, r.r2)
	for _, id := range []string{idA, idB} {
		r.plugin.Evict(id) // as a Watcher does; Recheck would, within a minute
	}
	r.work(20, nil)
	for _, id := range []string{idA, idB} {
		require.Equal(t, r.written[id].Load(), r.count(r.r1, id), "every letter, and no other")
	}
	r.r2.Follow(t, r.r1)
	require.Equal(t, r.written[idB].Load(), r.count(r.r2, idB))
	r.pure(r.r2)

	// The old primary comes back, as nobody's: only the process that was not
	// told still goes there, and nothing of the others does.
	r.primary.Restart()
	at := r.count(r.primary, idA)
	r.work(5, nil)
	require.Equal(t, at, r.count(r.primary, idA))
	require.NoError(t, stale.WithContext(tenant.Ctx(t.Context(), idA)).Find(&[]letter{}).Error)
	require.NotZero(t, stalePlugin.Stats().ReplicaReads)
}

// A replica that hangs costs the reads that are on it their deadline, and then
// nobody anything, until it answers again.
func TestReplicationFrozen(t *testing.T) {
	r := newReplication(t)
	r.work(5, nil)
	r.r1.Freeze()
	quick := func() error {
		ctx, cancel := context.WithTimeout(tenant.Ctx(context.Background(), idA), 500*time.Millisecond)
		defer cancel()
		return r.db.WithContext(ctx).Find(&[]letter{}).Error
	}
	failed := 0
	for served := 0; served < 20; { // in a row
		if err := quick(); err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			failed++
			served = 0
			require.Less(t, failed, 10, "one for each connection, and few more")
			continue
		}
		served++
	}
	require.NotZero(t, failed)
	down := r.events.of(tenancy.EventReplicaDown)
	require.NotEmpty(t, down)
	require.Equal(t, r.r1.Addr(), down[0].Server)
	require.NoError(t, r.session(idA)) // the primary is not concerned
	r.r1.Thaw()
	require.Eventually(t, func() bool {
		require.NoError(t, quick())
		return len(r.events.of(tenancy.EventReplicaUp)) > 0
	}, 30*time.Second, 20*time.Millisecond)
}

// All replicas are gone: the primary serves everything.
func TestReplicationPrimaryAlone(t *testing.T) {
	r := newReplication(t)
	r.work(5, nil)
	r.r1.Kill()
	r.r2.Kill()
	r.work(20, nil)
	require.Equal(t, r.written[idA].Load(), r.count(r.primary, idA))
	require.Len(t, r.plugin.Stats().Servers, 3)
	for _, s := range r.plugin.Stats().Servers {
		if s.Server != r.primary.Addr() {
			require.Equal(t, 2, s.Replicas)
		}
	}
}
