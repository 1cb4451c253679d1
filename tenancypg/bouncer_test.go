package tenancypg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Item is a row of a tenant. Every tenant has the same keys, so that a
// statement that went astray finds a row.
type Item struct {
	ID     uint
	Tenant string
	Count  int
}

// pooled is GORM with tenants behind a PgBouncer.
type pooled struct {
	t         *testing.T
	db        *gorm.DB
	pg        *pgtest.Cluster
	b         *pgtest.Bouncer
	ids       []string
	databases map[string]string // by tenant
}

const tenantConns = 4

// openPooled opens n tenants through a PgBouncer. mode is its pool mode, "" that
// of opts.
func openPooled(t *testing.T, n int, mode string, engine Engine, opts ...pgtest.BouncerOption) *pooled {
	t.Helper()
	clearEnv(t)
	p := &pooled{t: t, pg: pgtest.Shared(t), databases: map[string]string{}}
	if mode != "" {
		opts = append(opts, pgtest.PoolMode(mode))
	}
	p.b = pgtest.StartBouncer(t, p.pg, opts...)

	static := tenancy.Static{}
	for i := range n {
		id := fmt.Sprintf("t%d", i)
		name := p.pg.CreateDatabase(t)
		p.pg.Exec(t, name, "CREATE TABLE items (id bigserial PRIMARY KEY, tenant text, count int)")
		p.pg.Exec(t, name, "INSERT INTO items (tenant, count) VALUES ($1, 0)", id)
		p.ids = append(p.ids, id)
		p.databases[id] = name
		static[id] = tenancy.Database{DSN: p.b.DSN(name)}
	}

	c, err := engine.Connector(p.b.DSN(p.pg.CreateDatabase(t)))
	if err != nil {
		t.Fatal(err)
	}
	main := sql.OpenDB(c)
	t.Cleanup(func() { _ = main.Close() })
	p.db, err = gorm.Open(postgres.New(postgres.Config{Conn: main}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	plugin := tenancy.New(tenancy.Config{
		Resolver: static, Engine: engine, Pools: tenancy.Limits{MaxConnsPerTenant: tenantConns},
	})
	if err := p.db.Use(plugin); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := plugin.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *pooled) in(id string) *gorm.DB {
	ctx, cancel := context.WithTimeout(tenant.Ctx(context.Background(), id), time.Minute)
	p.t.Cleanup(cancel)
	return p.db.WithContext(ctx)
}

// raw reads one value of the tenant's database, around PgBouncer.
func (p *pooled) raw(id, query string, to any) {
	p.t.Helper()
	if err := p.pg.Conn(p.t, p.databases[id]).QueryRow(context.Background(), query).Scan(to); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pooled) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

var execModes = map[string]func(*pgx.ConnConfig) error{
	"exec": func(c *pgx.ConnConfig) error {
		c.DefaultQueryExecMode = pgx.QueryExecModeExec
		return nil
	},
	"cache_describe": func(c *pgx.ConnConfig) error {
		c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		return nil
	},
}

// All that an application does, through PgBouncer, in every combination that
// docs/pgbouncer.md says to work.
func TestBouncer(t *testing.T) {
	for _, tt := range []struct {
		name, mode string
		engine     Engine
		prepares   bool
	}{
		{"session/default", "session", Engine{}, false},
		{"transaction/simple", "transaction", Engine{PreferSimpleProtocol: true}, false},
		{"transaction/exec", "transaction", Engine{Configure: execModes["exec"]}, false},
		{"transaction/cache_describe", "transaction", Engine{Configure: execModes["cache_describe"]}, false},
		{"transaction/max_prepared_statements", "transaction", Engine{}, true},
	} {
		if tt.prepares && !knowsPrepared(t) {
			t.Log("left out: this PgBouncer carries no prepared statements in transaction mode; it does since 1.21")
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			// In session mode a connection of a tenant's pool keeps its
			// backend, so that fewer backends than connections hang.
			size := 2
			if tt.mode == "session" {
				size = tenantConns
			}
			opts := []pgtest.BouncerOption{pgtest.BouncerSetting("default_pool_size", fmt.Sprint(size))}
			if tt.prepares {
				opts = append(opts, pgtest.BouncerSetting("max_prepared_statements", "100"))
			}
			p := openPooled(t, 6, tt.mode, tt.engine, opts...)
			for _, id := range p.ids {
				p.crud(id)
				p.transactions(id)
			}
			p.heldRows()
			p.workers()

			// It all went through PgBouncer, on no more backends than that.
			backends := map[string]int{}
			for _, server := range p.b.Show(t, "SERVERS") {
				backends[server["database"]]++
			}
			for id, name := range p.databases {
				if n := backends[name]; n == 0 || n > size {
					t.Errorf("%s has %d backends, want 1 to %d", id, n, size)
				}
			}
		})
	}
}

func knowsPrepared(t *testing.T) bool {
	t.Helper()
	return pgtest.StartBouncer(t, pgtest.Shared(t)).AtLeast(1, 21)
}

func (p *pooled) crud(id string) {
	p.t.Helper()
	db := p.in(id)
	p.must(db.AutoMigrate(&Item{}))
	item := Item{Tenant: id, Count: 1}
	p.must(db.Create(&item).Error)
	for range 3 { // more than once: a statement is prepared at its first use
		var got Item
		p.must(db.First(&got, item.ID).Error)
		if got != item {
			p.t.Fatalf("%s: read %+v, wrote %+v", id, got, item)
		}
		item.Count++
		p.must(db.Model(&item).Update("count", item.Count).Error)
	}
	var count int
	p.raw(id, fmt.Sprintf("SELECT count FROM items WHERE id = %d", item.ID), &count)
	if count != item.Count {
		p.t.Errorf("%s: count is %d, want %d", id, count, item.Count)
	}
	p.must(db.Delete(&item).Error)
	if err := db.First(&Item{}, item.ID).Error; !errors.Is(err, gorm.ErrRecordNotFound) {
		p.t.Errorf("%s: a deleted row: %v", id, err)
	}
}

func (p *pooled) transactions(id string) {
	p.t.Helper()
	db := p.in(id)
	failure := errors.New("rolled back")
	for _, want := range []error{nil, failure} {
		err := db.Transaction(func(tx *gorm.DB) error {
			if err := tx.Model(&Item{}).Where("id = 1").Update("count", gorm.Expr("count + 10")).Error; err != nil {
				return err
			}
			_ = tx.Transaction(func(tx *gorm.DB) error { // a savepoint
				if err := tx.Create(&Item{Tenant: "nobody"}).Error; err != nil {
					p.t.Error(err)
				}
				return failure
			})
			return want
		})
		if !errors.Is(err, want) {
			p.t.Errorf("%s: %v, want %v", id, err, want)
		}
	}
	var count, nobody int
	p.raw(id, "SELECT count FROM items WHERE id = 1", &count)
	p.raw(id, "SELECT count(*) FROM items WHERE tenant = 'nobody'", &nobody)
	if count != 10 || nobody != 0 {
		p.t.Errorf("%s: count %d, want 10; %d rows were not rolled back", id, count, nobody)
	}
}

// heldRows reads all tenants' rows in turn, one of each: none of the results
// is read to its end before the others are.
func (p *pooled) heldRows() {
	p.t.Helper()
	const n = 20_000 // more than the sockets' buffers hold
	open := map[string]*sql.Rows{}
	for _, id := range p.ids {
		rows, err := p.in(id).Raw("SELECT current_database() FROM generate_series(1, ?)", n).Rows()
		p.must(err)
		defer rows.Close()
		open[id] = rows
	}
	for range n {
		for _, id := range p.ids {
			var name string
			if !open[id].Next() {
				p.t.Fatalf("%s: the rows ended early: %v", id, open[id].Err())
			}
			p.must(open[id].Scan(&name))
			if name != p.databases[id] {
				p.t.Fatalf("%s: a row of %s, want %s", id, name, p.databases[id])
			}
		}
	}
	for id, rows := range open {
		if rows.Next() || rows.Err() != nil {
			p.t.Errorf("%s: more rows, or %v", id, rows.Err())
		}
		p.must(rows.Close())
	}
}

// workers runs workers over all tenants at once. More connections want a
// server than PgBouncer may have.
func (p *pooled) workers() {
	p.t.Helper()
	const (
		workers = 8
		rounds  = 5
	)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range rounds * len(p.ids) {
				id := p.ids[(w+i)%len(p.ids)]
				db := p.in(id)
				item := Item{Tenant: id, Count: -1}
				err := db.Transaction(func(tx *gorm.DB) error {
					if err := tx.Create(&item).Error; err != nil {
						return err
					}
					var seen Item
					if err := tx.First(&seen, item.ID).Error; err != nil {
						return err
					}
					if seen != item {
						return fmt.Errorf("%s: wrote %+v, read %+v", id, item, seen)
					}
					return nil
				})
				if err != nil {
					p.t.Error(err)
					return
				}
				var others int64
				if err := db.Model(&Item{}).Where("tenant <> ?", id).Count(&others).Error; err != nil || others != 0 {
					p.t.Errorf("%s: %d rows of others, %v", id, others, err)
					return
				}
			}
		})
	}
	all.Wait()
	for _, id := range p.ids {
		var mine, others int
		p.raw(id, "SELECT count(*) FROM items WHERE count = -1 AND tenant = '"+id+"'", &mine)
		p.raw(id, "SELECT count(*) FROM items WHERE tenant <> '"+id+"'", &others)
		if mine != workers*rounds || others != 0 {
			p.t.Errorf("%s has %d rows of its own, want %d, and %d of others", id, mine, workers*rounds, others)
		}
	}
}

// The configuration that docs/pgbouncer.md shows is one that PgBouncer takes.
func TestBouncerDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/pgbouncer.md")
	if err != nil {
		t.Fatal(err)
	}
	_, ini, _ := strings.Cut(string(page), "```ini\n")
	ini, _, _ = strings.Cut(ini, "```")
	_, ini, found := strings.Cut(ini, "[pgbouncer]\n")
	if !found {
		t.Fatal("the page has no configuration")
	}
	var opts []pgtest.BouncerOption
	want := map[string]string{}
	for line := range strings.Lines(ini) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		switch {
		case !ok || strings.HasPrefix(name, ";"):
		case strings.HasPrefix(name, "listen_"), strings.HasPrefix(name, "auth_"): // the test's own
		default:
			opts = append(opts, pgtest.BouncerSetting(name, value))
			want[name] = value
		}
	}
	p := openPooled(t, 2, "", Engine{Configure: execModes["exec"]}, opts...)
	for _, row := range p.b.Show(t, "CONFIG") {
		if value, ok := want[row["key"]]; ok && value != row["value"] {
			t.Errorf("%s is %s, want %s", row["key"], row["value"], value)
		}
		delete(want, row["key"])
	}
	if len(want) > 0 {
		t.Errorf("PgBouncer does not know %v", want)
	}
	for _, id := range p.ids {
		p.crud(id)
	}
}

// hold takes an idle connection of the tenant out of its pool while fn runs.
func (p *pooled) hold(id string, fn func(*sql.Conn)) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(tenant.Ctx(context.Background(), id), time.Minute)
	defer cancel()
	p.must(tenancy.Conn(ctx, p.db, func(c *sql.Conn) error { fn(c); return nil }))
}

// pgx prepares statements by default. In transaction mode a PgBouncer that
// does not carry them breaks in two ways, and this is how.
func TestBouncerBreaksPreparedStatements(t *testing.T) {
	open := func(t *testing.T, size string) *pooled {
		opts := []pgtest.BouncerOption{pgtest.BouncerSetting("default_pool_size", size)}
		if probe := pgtest.StartBouncer(t, pgtest.Shared(t)); probe.AtLeast(1, 21) {
			opts = append(opts, pgtest.BouncerSetting("max_prepared_statements", "0"))
		}
		return openPooled(t, 1, "transaction", Engine{}, opts...)
	}
	check := func(t *testing.T, err error, want string) {
		t.Helper()
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != want {
			t.Errorf("got %v, want SQLSTATE %s", err, want)
		}
	}

	t.Run("another client's statement is there", func(t *testing.T) {
		p := open(t, "1")
		db := p.in("t0")
		p.must(db.First(&Item{}, 1).Error)
		p.hold("t0", func(*sql.Conn) {
			// A new connection, and the same backend.
			check(t, db.First(&Item{}, 1).Error, "42P05") // duplicate_prepared_statement
		})
	})
	t.Run("its own statement is not", func(t *testing.T) {
		p := open(t, "2")
		db := p.in("t0")
		p.must(db.First(&Item{}, 1).Error)
		var other *gorm.DB
		p.hold("t0", func(*sql.Conn) {
			other = db.Begin() // a new connection, and the only backend so far
			p.must(other.Error)
		})
		defer other.Rollback()
		// The first connection, and a new backend.
		check(t, db.First(&Item{}, 1).Error, "26000") // invalid_sql_statement_name
	})
}

// What a session holds is lost in transaction mode, and found by the next
// client of the same database: never by another tenant.
func TestBouncerSessionState(t *testing.T) {
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			p := openPooled(t, 2, mode, Engine{PreferSimpleProtocol: true}, pgtest.BouncerSetting("default_pool_size", "2"))
			keeps := mode == "session"
			p.hold("t0", func(mine *sql.Conn) {
				for _, statement := range []string{
					"SET lock_timeout = '7s'",
					"SET timezone = 'Asia/Tokyo'",
					"SELECT pg_advisory_lock(1)",
					"CREATE TEMP TABLE scratch (id int)",
					"LISTEN news",
				} {
					_, err := mine.ExecContext(context.Background(), statement)
					p.must(err)
				}
				other := p.in("t0").Begin() // in transaction mode, takes mine's backend
				defer other.Rollback()
				for query, kept := range map[string]bool{
					"SELECT current_setting('lock_timeout') = '7s'":                                            keeps,
					"SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()": keeps,
					"SELECT to_regclass('pg_temp.scratch') IS NOT NULL":                                        keeps,
					"SELECT count(*) = 1 FROM pg_listening_channels()":                                         keeps,
				} {
					var got bool
					p.must(mine.QueryRowContext(context.Background(), query).Scan(&got))
					if got != kept {
						t.Errorf("mine: %s: %v, want %v", query, got, kept)
					}
					p.must(other.Raw(query).Scan(&got).Error)
					if got == kept {
						t.Errorf("the other client: %s: %v, want %v", query, got, !kept)
					}
					// Another tenant meets nothing of it.
					p.must(p.in("t1").Raw(query).Scan(&got).Error)
					if got {
						t.Errorf("another tenant: %s", query)
					}
				}
				// The time zone is one of the few parameters that PgBouncer
				// tracks for each client.
				var zone string
				p.must(mine.QueryRowContext(context.Background(), "SHOW timezone").Scan(&zone))
				if zone != "Asia/Tokyo" {
					t.Errorf("mine: the time zone is %s", zone)
				}
				p.must(other.Raw("SHOW timezone").Scan(&zone).Error)
				if zone == "Asia/Tokyo" {
					t.Error("the other client has the time zone")
				}
				// A lock that keeps out nobody.
				var locked bool
				p.must(other.Raw("SELECT pg_try_advisory_lock(1)").Scan(&locked).Error)
				if locked == keeps {
					t.Errorf("the other client got the lock: %v, want %v", locked, !keeps)
				}
			})
		})
	}
}

// What a DSN may say: PgBouncer tracks a few parameters of a session, refuses
// others, and drops those that it is told to ignore.
func TestBouncerStartupParameters(t *testing.T) {
	clearEnv(t)
	pg := pgtest.Shared(t)
	name := pg.CreateDatabase(t)
	read := func(b *pgtest.Bouncer, params, setting string) (value string, err error) {
		c, err := Engine{PreferSimpleProtocol: true}.Connector(b.DSN(name) + params)
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(c)
		defer db.Close()
		err = db.QueryRow("SELECT current_setting($1)", setting).Scan(&value)
		return value, err
	}
	b := pgtest.StartBouncer(t, pg, pgtest.PoolMode("transaction"))
	for params, want := range map[string][2]string{
		"&TimeZone=Asia/Tokyo":     {"timezone", "Asia/Tokyo"},
		"&application_name=orders": {"application_name", "orders"},
		"&datestyle=German":        {"datestyle", "German, DMY"},
	} {
		if got, err := read(b, params, want[0]); err != nil || got != want[1] {
			t.Errorf("%s: %s is %q, %v", params, want[0], got, err)
		}
	}
	for params, setting := range map[string]string{
		"&statement_timeout=1000":           "statement_timeout",
		"&extra_float_digits=3":             "extra_float_digits",
		"&options=-c%20lock_timeout%3D1000": "lock_timeout",
	} {
		if _, err := read(b, params, setting); err == nil || (Engine{}).Classify(err) != tenancy.FaultTenant {
			t.Errorf("%s: %v", params, err)
		}
	}
	ignoring := pgtest.StartBouncer(t, pg, pgtest.BouncerSetting("ignore_startup_parameters", "statement_timeout"))
	if got, err := read(ignoring, "&statement_timeout=1000", "statement_timeout"); err != nil || got != "0" {
		t.Errorf("an ignored parameter has the value %q, %v", got, err)
	}
}
