package bench

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/jackc/pgx/v5"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// turn is one of the ways that take turns. do returns what it took, without
// what it had to prepare.
type turn struct {
	name string
	do   func(i int) time.Duration
}

// takeTurns lets each way go once in every iteration, each time another one
// first, so that a loaded machine slows all. It reports the medians, and the
// first way's as a multiple of each other one's, and returns the first's.
// between is called untimed after each iteration.
func takeTurns(b *testing.B, between func(i int), ways ...turn) (firstMS float64) {
	b.Helper()
	times := make([][]time.Duration, len(ways))
	n := 0
	for ; b.Loop(); n++ {
		for k := range ways {
			w := (n + k) % len(ways)
			if n/len(ways)%2 == 1 { // and after another one
				w = len(ways) - 1 - w
			}
			times[w] = append(times[w], ways[w].do(n))
		}
		between(n)
	}
	ours := median(times[0])
	b.ReportMetric(1000*ours, ways[0].name+"-us")
	for i, w := range ways[1:] {
		theirs := median(times[i+1])
		b.ReportMetric(1000*theirs, w.name+"-us")
		b.ReportMetric(ours/theirs, "of-"+w.name)
	}
	b.ReportMetric(0, "ns/op") // all together: hidden
	return ours
}

// notes is the schema of a tenant in these benchmarks.
func notes(id string) migrate.Migrator {
	return migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS notes (id "+id+", text text NOT NULL)")
		return err
	})
}

// site is a PostgreSQL server with a main database and the two roles that
// docs/lifecycle.md advises: neither is a superuser.
type site struct {
	pg               *pgtest.Cluster
	main, app, admin string // DSNs
	appRole          string
}

func newSite(b *testing.B, opts ...pgtest.Option) site {
	b.Helper()
	pg := pgtest.Start(b, opts...)
	pg.Exec(b, "postgres", "CREATE ROLE bench_admin LOGIN CREATEDB IN ROLE pg_signal_backend")
	pg.Exec(b, "postgres", "CREATE ROLE bench_app LOGIN")
	as := func(role string) string {
		return strings.Replace(pg.DSN("postgres"), "postgres@", role+"@", 1)
	}
	return site{pg: pg, main: pg.DSN(pg.CreateDatabase(b)), app: as("bench_app"), admin: as("bench_admin"), appRole: "bench_app"}
}

// open opens the catalog as a process does at its start.
func (s site) open(b *testing.B, change func(*catalog.Config)) (*catalog.Catalog, *gorm.DB) {
	b.Helper()
	main, err := gorm.Open(postgres.Open(s.main), quiet())
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, main)
	server, err := tenancypg.NewServer(tenancypg.ServerConfig{App: s.app, Admin: s.admin})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() })
	cfg := catalog.Config{
		Servers: map[string]catalog.Server{"s1": server},
		Logger:  slog.New(slog.DiscardHandler),
	}
	change(&cfg)
	cat, err := catalog.New(main, cfg)
	if err != nil {
		b.Fatal(err)
	}
	if err := cat.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	return cat, main
}

func create(b *testing.B, cat *catalog.Catalog, id string) catalog.Tenant {
	b.Helper()
	t, err := cat.Create(b.Context(), id, catalog.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	if t.State != catalog.Active {
		b.Fatalf("%s is %s", id, t.State)
	}
	return t
}

// execOn returns a connection's Exec that fails the benchmark.
func execOn(b *testing.B, conn *pgx.Conn) func(sql string, args ...any) {
	return func(sql string, args ...any) {
		if _, err := conn.Exec(context.Background(), sql, args...); err != nil {
			b.Helper()
			b.Fatalf("%s: %v", sql, err)
		}
	}
}

func connect(b *testing.B, dsn string) *pgx.Conn {
	b.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// BenchmarkCreate compares Catalog.Create from a template that is there with
// what a program would do by hand, on connections that it keeps:
//
//   - "bare" makes all that Create commits, and nothing else: see bareCreate.
//   - "least" makes the database and one row, connects once and writes once:
//     no crash leaves a trace, and no second process is thought of.
//
// copy-us is CREATE DATABASE alone, copy-% its part of Create.
//
// "fsync" is on a server as it is in production (fsync, synchronous_commit and
// full_page_writes are on), "nofsync" on one that never waits for the disk.
func BenchmarkCreate(b *testing.B) {
	durable := []pgtest.Option{
		pgtest.Setting("fsync", "on"), pgtest.Setting("synchronous_commit", "on"), pgtest.Setting("full_page_writes", "on"),
	}
	for _, variant := range []struct {
		name string
		opts []pgtest.Option
	}{{"nofsync", nil}, {"fsync", durable}} {
		b.Run(variant.name, func(b *testing.B) { benchCreate(b, newSite(b, variant.opts...)) })
	}
}

func benchCreate(b *testing.B, s site) {
	cat, _ := s.open(b, func(cfg *catalog.Config) { cfg.Migrator = notes("bigserial PRIMARY KEY") })
	create(b, cat, "first") // makes the template
	admin := connect(b, s.admin)
	defer admin.Close(context.Background()) //nolint:errcheck // the server is ours
	main := connect(b, s.main)
	defer main.Close(context.Background()) //nolint:errcheck // likewise
	execOn(b, main)("CREATE TABLE by_hand (LIKE tenancy_tenants INCLUDING ALL)")

	h := &byHand{b: b, s: s, admin: admin, main: main}
	if err := admin.QueryRow(context.Background(), "SELECT datname FROM pg_database WHERE datistemplate AND datdba = current_user::regrole").Scan(&h.template); err != nil {
		b.Fatal(err)
	}
	h.bare("bare_first") // prepares what is prepared once
	h.copying = nil
	ours := takeTurns(b, func(int) { h.tidy() },
		turn{"tenancy", func(i int) time.Duration {
			start := time.Now()
			t := create(b, cat, fmt.Sprintf("t%d", i))
			took := time.Since(start)
			h.made = append(h.made, t.Database)
			return took
		}},
		turn{"bare", func(i int) time.Duration { return h.bare(fmt.Sprintf("bare_%d", i)) }},
		turn{"least", func(i int) time.Duration { return h.least(fmt.Sprintf("least_%d", i)) }},
	)
	b.ReportMetric(1000*median(h.copying), "copy-us")
	b.ReportMetric(100*median(h.copying)/ours, "copy-%")
}

// byHand makes tenants' databases without the module.
type byHand struct {
	b           *testing.B
	s           site
	admin, main *pgx.Conn
	template    string
	made        []string        // databases that can be dropped
	copying     []time.Duration // what CREATE DATABASE took
}

// tidy drops what was made: some 7 MB each, and as much of WAL. A drop makes a
// checkpoint, so it is done seldom.
func (h *byHand) tidy() {
	if len(h.made) < 48 {
		return
	}
	for _, name := range h.made {
		execOn(h.b, h.admin)("DROP DATABASE " + pgx.Identifier{name}.Sanitize() + " WITH (FORCE)")
	}
	h.made = h.made[:0]
}

const (
	insertByHand = `INSERT INTO by_hand (uid, id, state, server, dbname, task, lease_owner, lease_until)
		VALUES ($1, $1, 'provisioning', 's1', $1, 'create', $1, 1)`
	renewByHand    = "UPDATE by_hand SET lease_until = lease_until + 1 WHERE uid = $1 AND lease_owner = $1"
	activateByHand = "UPDATE by_hand SET state = 'active', task = '', lease_owner = '', lease_until = 0, revision = revision + 1 WHERE uid = $1"
	renewals       = 6 // of Create: one for each step
)

// bare matches what Create commits (log_statement=all shows it), one for one:
//
//   - in the main database: the row, six renewals of its lease, its activation;
//   - on the server: CREATE DATABASE, REVOKE with ALTER DATABASE, GRANT;
//   - one connection to the new database, and in it one transaction, with the
//     tenant's mark and the database's comment.
//
// What Create only reads is not matched, 17 round trips: the row of the id and
// of the uid, a ready database; the lock and its release, the roles, leftovers,
// five times the database's facts and once the template's, once that the lock
// is still held; in the new database its mark, and twice its grants.
func (h *byHand) bare(name string) time.Duration {
	defer func() { h.made = append(h.made, name) }()
	onMain, onAdmin := execOn(h.b, h.main), execOn(h.b, h.admin)
	start := time.Now()
	onMain(insertByHand, name)
	onMain(renewByHand, name)
	h.copy(name, " ALLOW_CONNECTIONS false")
	onAdmin("REVOKE CONNECT, TEMPORARY ON DATABASE " + name + " FROM PUBLIC; ALTER DATABASE " + name + " ALLOW_CONNECTIONS true")
	onMain(renewByHand, name)
	tenant := h.connect(name)
	execOn(h.b, tenant)("UPDATE " + tenancy.MetaTable + " SET uid = '" + name + "'; COMMENT ON DATABASE " + name + " IS '" + name + "'")
	for range renewals - 3 { // migrate, seed, open
		onMain(renewByHand, name)
	}
	onAdmin("GRANT CONNECT, TEMPORARY ON DATABASE " + name + " TO " + h.s.appRole)
	_ = tenant.Close(context.Background())
	onMain(renewByHand, name)
	onMain(activateByHand, name)
	return time.Since(start)
}

// least is the least that makes a tenant.
func (h *byHand) least(name string) time.Duration {
	defer func() { h.made = append(h.made, name) }()
	start := time.Now()
	h.copy(name, " ALLOW_CONNECTIONS true")
	tenant := h.connect(name)
	execOn(h.b, tenant)("UPDATE " + tenancy.MetaTable + " SET uid = '" + name + "'")
	_ = tenant.Close(context.Background())
	execOn(h.b, h.main)("INSERT INTO by_hand (uid, id, state, server, dbname) VALUES ($1, $1, 'active', 's1', $1)", name)
	return time.Since(start)
}

func (h *byHand) copy(name, options string) {
	start := time.Now()
	execOn(h.b, h.admin)("CREATE DATABASE " + name + " TEMPLATE " + pgx.Identifier{h.template}.Sanitize() + options + walLog(h.admin))
	h.copying = append(h.copying, time.Since(start))
}

func (h *byHand) connect(name string) *pgx.Conn {
	cfg := h.admin.Config()
	cfg.Database = name
	conn, err := pgx.ConnectConfig(context.Background(), cfg)
	if err != nil {
		h.b.Fatal(err)
	}
	return conn
}

// walLog is the strategy that makes no checkpoint, from PostgreSQL 15 on.
func walLog(conn *pgx.Conn) string {
	if conn.PgConn().ParameterStatus("server_version") < "15" {
		return ""
	}
	return " STRATEGY wal_log"
}

const manyRows = 10_000

// fill writes that many active tenants, of no databases.
func fill(b *testing.B, main *gorm.DB) {
	b.Helper()
	err := main.Exec(`INSERT INTO tenancy_tenants (uid, id, state, server, dbname)
		SELECT 'uid'||i, 't'||i, 'active', 's1', 'db'||i FROM generate_series(0, ?) i`, manyRows-1).Error
	if err == nil {
		err = main.Exec("VACUUM ANALYZE tenancy_tenants").Error
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkClaim is a sign-up that finds a ready database, among 10,000
// tenants, against one conditional UPDATE of the same table. "one" has one
// server, so there is nothing to place; "placed" has a Placement, which is told
// of all tenants.
func BenchmarkClaim(b *testing.B) {
	b.Run("one", func(b *testing.B) { benchClaim(b, nil) })
	b.Run("placed", func(b *testing.B) {
		benchClaim(b, func(context.Context, []catalog.Load) (string, error) { return "s1", nil })
	})
}

func benchClaim(b *testing.B, placement catalog.Placement) {
	s := newSite(b)
	cat, main := s.open(b, func(cfg *catalog.Config) { cfg.Placement = placement })
	fill(b, main)
	pool, err := main.DB()
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	supply := func(count int) { // to claim one without a Seed, no database is looked at
		for range count {
			n++
			if err := main.Exec(`INSERT INTO tenancy_tenants (uid, state, server, dbname)
				VALUES ('r'||?::int, 'ready', 's1', 'ready'||?::int)`, n, n).Error; err != nil {
				b.Fatal(err)
			}
		}
	}
	const bare = `UPDATE tenancy_tenants SET id = $1, state = 'active', labels = '{}', max_conns = 0,
			revision = revision + 1, created_at = clock_timestamp(), updated_at = clock_timestamp()
		WHERE state = 'ready' AND uid = (SELECT uid FROM tenancy_tenants WHERE state = 'ready' AND server = $2
			AND fingerprint = '' ORDER BY created_at, uid LIMIT 1 FOR UPDATE SKIP LOCKED)
		RETURNING uid, server, dbname, generation`
	supply(10)
	takeTurns(b, func(int) { supply(2) },
		turn{"tenancy", func(i int) time.Duration {
			start := time.Now()
			t, err := cat.Create(b.Context(), fmt.Sprintf("new%d", i), catalog.CreateOptions{})
			took := time.Since(start)
			if err != nil || t.UID[0] != 'r' {
				b.Fatalf("%+v: %v", t, err)
			}
			return took
		}},
		turn{"bare", func(i int) time.Duration {
			var uid, server, name string
			var generation int64
			start := time.Now()
			err := pool.QueryRowContext(b.Context(), bare, fmt.Sprintf("bare%d", i), "s1").Scan(&uid, &server, &name, &generation)
			if err != nil {
				b.Fatal(err)
			}
			return time.Since(start)
		}},
	)
}

// BenchmarkLookup is Resolve among 10,000 tenants. "warm" is one that is
// remembered, "map" what holds the same answer by hand. "cold" asks the main
// database each time, against a SELECT of the same columns.
func BenchmarkLookup(b *testing.B) {
	s := newSite(b)
	cat, main := s.open(b, func(cfg *catalog.Config) { cfg.Poll = time.Hour })
	fill(b, main)
	ids := make([]string, manyRows)
	for i := range ids {
		ids[i] = fmt.Sprintf("t%d", i)
	}
	b.Run("warm", func(b *testing.B) {
		const hot = 100
		for i := range hot {
			if _, err := cat.Resolve(b.Context(), ids[i]); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := cat.Resolve(b.Context(), ids[i%hot]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("map", func(b *testing.B) {
		var mu sync.RWMutex
		known := map[string]tenancy.Database{}
		for _, id := range ids {
			known[id] = tenancy.Database{DSN: s.app, Server: "s1"}
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			mu.RLock()
			_, ok := known[ids[i%100]]
			mu.RUnlock()
			if !ok {
				b.Fatal("not there")
			}
		}
	})
	b.Run("cold", func(b *testing.B) {
		// It remembers one, and is always asked for another.
		cat, main := s.open(b, func(cfg *catalog.Config) { cfg.Remember = 1 })
		pool, err := main.DB()
		if err != nil {
			b.Fatal(err)
		}
		ask := func(i int) string { return ids[i*7919%manyRows] }
		takeTurns(b, func(int) {},
			turn{"tenancy", func(i int) time.Duration {
				start := time.Now()
				if _, err := cat.Resolve(b.Context(), ask(i)); err != nil {
					b.Fatal(err)
				}
				return time.Since(start)
			}},
			turn{"bare", func(i int) time.Duration {
				var uid, state, server, name, reason string
				var generation int64
				var conns int
				start := time.Now()
				if err := pool.QueryRowContext(b.Context(), `SELECT uid, state, server, dbname, generation, max_conns, reason
					FROM tenancy_tenants WHERE id = $1 AND state <> 'deleted'`, ask(i)).
					Scan(&uid, &state, &server, &name, &generation, &conns, &reason); err != nil {
					b.Fatal(err)
				}
				return time.Since(start)
			}},
		)
	})
}

// BenchmarkCreateSQLite compares Catalog.Create from a template with a copy of
// the template's file that is opened for one statement. "bare" leaves it to
// the system when the file reaches the disk, "synced" waits for that.
func BenchmarkCreateSQLite(b *testing.B) {
	dir := b.TempDir()
	main, err := gorm.Open(sqlite.Open(filepath.Join(dir, "main.db")+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"), quiet())
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, main)
	servers := filepath.Join(dir, "s1")
	server, err := tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: servers})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() })
	cat, err := catalog.New(main, catalog.Config{
		Servers:  map[string]catalog.Server{"s1": server},
		Migrator: notes("integer PRIMARY KEY"),
		Logger:   slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = cat.Migrate(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	create(b, cat, "first") // makes the template
	templates, err := filepath.Glob(filepath.Join(servers, ".template-*"))
	templates = slices.DeleteFunc(templates, func(name string) bool {
		return strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-shm")
	})
	if err != nil || len(templates) != 1 {
		b.Fatal(templates, err)
	}
	byHand := func(sync bool) func(int) time.Duration {
		return func(i int) time.Duration {
			name := filepath.Join(dir, fmt.Sprintf("bare%t%d.db", sync, i))
			start := time.Now()
			if err := copyFile(name, templates[0], sync); err != nil {
				b.Fatal(err)
			}
			db, err := sql.Open("sqlite", name)
			if err == nil {
				_, err = db.Exec("UPDATE "+tenancy.MetaTable+" SET uid = ?", name)
			}
			if err == nil {
				err = db.Close()
			}
			if err != nil {
				b.Fatal(err)
			}
			return time.Since(start)
		}
	}
	takeTurns(b, func(int) {},
		turn{"tenancy", func(i int) time.Duration {
			start := time.Now()
			create(b, cat, fmt.Sprintf("t%d", i))
			return time.Since(start)
		}},
		turn{"bare", byHand(false)},
		turn{"synced", byHand(true)},
	)
}

func copyFile(to, from string, sync bool) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if err == nil && sync {
		err = w.Sync()
	}
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	return err
}
