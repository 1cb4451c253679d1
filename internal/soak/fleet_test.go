package soak

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
)

// Sign is the one row of each database that says whose it is.
type Sign struct {
	ID     uint
	Tenant string
	Visits int64
}

// Item is what the load writes.
type Item struct {
	ID     uint
	Tenant string
	Note   string
}

const template = "soak_template"

// startServer starts a server that clones databases fast: a clone's pages don't
// go through the log.
func startServer(t testing.TB, opts ...pgtest.Option) *pgtest.Cluster {
	return pgtest.Start(t, append([]pgtest.Option{
		pgtest.Setting("wal_level", "minimal"), pgtest.Setting("max_wal_senders", "0"),
	}, opts...)...)
}

// fleet is many tenants' databases, on one server or on several.
type fleet struct {
	clusters []*pgtest.Cluster
	tenants  []*customer
	byID     map[string]*customer
}

// customer is a tenant, and what the load has done to its database.
type customer struct {
	id, database string
	cluster      *pgtest.Cluster
	items        atomic.Int64 // written, and committed
	visits       atomic.Int64
}

// newFleet makes perCluster tenants on each cluster.
func newFleet(t testing.TB, perCluster int, clusters ...*pgtest.Cluster) *fleet {
	t.Helper()
	f := &fleet{clusters: clusters, byID: map[string]*customer{}}
	began := time.Now()
	var clone string
	for n, cluster := range clusters {
		var version int
		require.NoError(t, cluster.Admin(t).QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&version))
		if version >= 150000 { // before, it was the only way
			clone = " STRATEGY FILE_COPY"
		}
		cluster.Exec(t, "postgres", "CREATE DATABASE "+template)
		cluster.Exec(t, template, `
			CREATE TABLE signs (id bigint PRIMARY KEY, tenant text NOT NULL, visits bigint NOT NULL DEFAULT 0);
			CREATE TABLE items (id bigserial PRIMARY KEY, tenant text NOT NULL, note text NOT NULL)`)
		for i := range perCluster {
			c := &customer{id: fmt.Sprintf("s%d-tenant-%03d", n, i), database: fmt.Sprintf("soak_%d_%03d", n, i), cluster: cluster}
			f.tenants = append(f.tenants, c)
			f.byID[c.id] = c
		}
	}
	f.each(t, func(c *customer) error { return c.create(clone) })
	t.Logf("%d databases in %s", len(f.tenants), time.Since(began).Round(time.Millisecond))
	return f
}

func (c *customer) create(how string) error {
	if err := c.admin("postgres", "CREATE DATABASE "+c.database+" TEMPLATE "+template+how); err != nil {
		return err
	}
	return c.admin(c.database, "INSERT INTO signs (id, tenant) VALUES (1, '"+c.id+"')")
}

// admin runs one statement on a connection of its own.
func (c *customer) admin(database, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.cluster.DSN(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

// static is where the tenants are.
func (f *fleet) static() tenancy.Static {
	s := tenancy.Static{}
	for _, c := range f.tenants {
		s[c.id] = tenancy.Database{DSN: c.cluster.DSN(c.database)}
	}
	return s
}

// app is an application with its own pools on the fleet.
type app struct {
	t      testing.TB
	fleet  *fleet
	db     *gorm.DB
	plugin *tenancy.Plugin
	wire   *wire
	mainDB *sql.DB
	before goleak.Option // the goroutines there were
}

func (f *fleet) open(t testing.TB, limits tenancy.Limits, change ...func(*tenancy.Config)) *app {
	t.Helper()
	a := &app{t: t, fleet: f, wire: newWire(), before: goleak.IgnoreCurrent()}
	cfg := tenancy.Config{
		Resolver: f.static(),
		Engine:   tenancypg.Engine{Configure: a.wire.configure},
		Pools:    limits,
	}
	for _, c := range change {
		c(&cfg)
	}
	// No test here has a main model, so there is no main database.
	main, err := pgx.ParseConfig("postgres://nobody@127.0.0.1:1/none?sslmode=disable")
	require.NoError(t, err)
	a.mainDB = stdlib.OpenDB(*main)
	a.db, err = gorm.Open(postgres.New(postgres.Config{Conn: a.mainDB}), &gorm.Config{Logger: logger.Discard, DisableAutomaticPing: true})
	require.NoError(t, err)
	a.plugin = tenancy.New(cfg)
	require.NoError(t, a.db.Use(a.plugin))
	return a
}

// close ends the app, and fails if anything is left of it.
func (a *app) close(limit int) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	if err := a.plugin.Close(ctx); err != nil {
		a.t.Errorf("close: %v", err)
	}
	a.t.Logf("closed in %s", time.Since(began).Round(time.Millisecond))
	s := a.plugin.Stats()
	if s.Pools != 0 || s.Draining != 0 || s.Opening != 0 || s.Conns != 0 {
		a.t.Errorf("left after Close: %+v", s)
	}
	for _, server := range s.Servers {
		if server.Conns != 0 || server.Waiting != 0 {
			a.t.Errorf("left after Close: %+v", server)
		}
		a.t.Logf("%+v", server)
	}
	a.wire.check(a.t, limit)
	_ = a.mainDB.Close()
	goleak.VerifyNone(a.t, a.before)
}

// verify reads every tenant's database raw: nothing of anybody else's is there,
// and of its own, unless its server was killed, all that was committed, once.
func (f *fleet) verify(t testing.TB, exact bool) {
	t.Helper()
	began := time.Now()
	f.each(t, func(c *customer) error { return c.verify(exact) })
	t.Logf("%d databases read in %s", len(f.tenants), time.Since(began).Round(time.Millisecond))
}

func (c *customer) verify(exact bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.cluster.DSN(c.database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var (
		sign                  string
		signs, visits, items  int64
		strangers, unexpected int64
	)
	err = conn.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM signs), (SELECT min(tenant) FROM signs), (SELECT sum(visits)::bigint FROM signs),
		(SELECT count(*) FROM items), (SELECT count(*) FROM items WHERE tenant <> $1),
		(SELECT count(*) FROM items WHERE note <> $2)`, c.id, kept).
		Scan(&signs, &sign, &visits, &items, &strangers, &unexpected)
	if err != nil {
		return err
	}
	if signs != 1 || sign != c.id || strangers != 0 || unexpected != 0 ||
		exact && (visits != c.visits.Load() || items != c.items.Load()) {
		return fmt.Errorf("%d signs, of %q; %d visits, and %d were made; %d items, and %d were written; %d of them are another tenant's and %d were not committed",
			signs, sign, visits, c.visits.Load(), items, c.items.Load(), strangers, unexpected)
	}
	return nil
}

// each calls do for every tenant, two at a time: a server of few cores makes
// databases and connections no faster than that.
func (f *fleet) each(t testing.TB, do func(*customer) error) {
	t.Helper()
	todo := make(chan *customer)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for c := range todo {
				if err := do(c); err != nil {
					t.Errorf("%s: %v", c.id, err)
				}
			}
		})
	}
	for _, c := range f.tenants {
		todo <- c
	}
	close(todo)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// backends watches what the server thinks: how many backends serve tenants'
// databases.
type backends struct {
	samples, peak int
	over          time.Duration // the longest time without a sample within the limit
	stop          context.CancelFunc
	done          chan error
}

// between two samples
const samplePause = 50 * time.Millisecond

// watchBackends samples pg_stat_activity on a connection of its own.
func watchBackends(t testing.TB, cluster *pgtest.Cluster, limit int) *backends {
	t.Helper()
	conn := cluster.Admin(t)
	b := &backends{done: make(chan error, 1)}
	var ctx context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	go func() {
		tick := time.NewTicker(samplePause)
		defer tick.Stop()
		within := time.Now()
		for {
			var n int
			began := time.Now()
			// Without the cancel of ctx: that would cost a cancel request.
			err := conn.QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_activity
				WHERE backend_type = 'client backend' AND datname LIKE 'soak\_%'`).Scan(&n)
			if err != nil {
				b.done <- err
				return
			}
			b.samples++
			b.peak = max(b.peak, n)
			if n <= limit {
				within = began
			} else {
				b.over = max(b.over, began.Sub(within))
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				b.done <- nil
				return
			}
		}
	}()
	return b
}

// lag is how long a backend may outlive its client's socket. 119 ms was the
// longest that was measured on a busy machine; a backend that goes on with its
// statement, because nobody told it to stop, stays for the 4 s that the
// statements of the load sleep.
const lag = 2 * time.Second

// check ends the watch.
func (b *backends) check(t testing.TB, limit int) {
	t.Helper()
	b.stop()
	if err := <-b.done; err != nil {
		t.Error(err)
		return
	}
	t.Logf("%d samples of pg_stat_activity: at most %d backends, over %d for at most %s",
		b.samples, b.peak, limit, b.over.Round(time.Millisecond))
	if b.over > lag {
		t.Errorf("there were more than %d backends for %s", limit, b.over)
	}
}
