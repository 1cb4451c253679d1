package catalog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) {
	if isChild() {
		os.Exit(runChild())
	}
	goleak.VerifyTestMain(pgtest.Main(m))
}

// Note is a row of a tenant.
type Note struct {
	ID   uint
	Text string
}

// place is what a process must know to open the catalog of a test: a child
// process gets it as JSON.
type place struct {
	Engine  string            // "postgres" or "sqlite"
	Main    string            // DSN
	Servers map[string]target // by name
	Backups string            // a directory
	Version int64             // of the migrations; 0 for none
	Lease   time.Duration
	Seeds   bool
	Ready   int
	Adopt   string // a database that can be adopted
}

// target is a server: DSNs, or a directory.
type target struct{ App, Admin, Dir string }

// engines are what every test of the life cycle runs on.
var engines = []string{"sqlite", "postgres"}

func onEngines(t *testing.T, test func(t *testing.T, p place)) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			test(t, newPlace(t, engine))
		})
	}
}

// newPlace makes a main database and one server, "s1".
func newPlace(t *testing.T, engine string) place {
	t.Helper()
	p := place{Engine: engine, Servers: map[string]target{}, Backups: filepath.Join(t.TempDir(), "backups"), Version: 1, Lease: 2 * time.Second}
	if engine == "sqlite" {
		dir := t.TempDir()
		p.Main = filepath.Join(dir, "main.db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_txlock=immediate"
		p.Servers["s1"] = target{Dir: filepath.Join(dir, "s1")}
		return p
	}
	pg := pgtest.Shared(t)
	p.Main = pg.DSN(pg.CreateDatabase(t))
	p.Servers["s1"] = pgTarget(t, pg)
	return p
}

// pgTarget makes the roles of an administrator who is no superuser, and of the
// application, and drops at the end what the test's catalog has left.
func pgTarget(t *testing.T, pg *pgtest.Cluster) target {
	t.Helper()
	suffix := strings.ToLower(strings.NewReplacer("/", "_", " ", "_", "#", "_").Replace(t.Name()))
	suffix = fmt.Sprintf("%s_%d", suffix[max(0, len(suffix)-24):], time.Now().UnixNano()%1_000_000)
	admin, app := "admin_"+suffix, "app_"+suffix
	c := pg.Admin(t)
	for _, q := range []string{
		fmt.Sprintf("CREATE ROLE %q LOGIN CREATEDB IN ROLE pg_signal_backend", admin),
		fmt.Sprintf("CREATE ROLE %q LOGIN", app),
	} {
		_, err := c.Exec(context.Background(), q)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		dropAll(t, pg, owned(t, pg, admin))
		pg.Exec(t, "postgres", fmt.Sprintf("DROP ROLE %q", admin))
		pg.Exec(t, "postgres", fmt.Sprintf("DROP ROLE %q", app))
	})
	as := func(role string) string {
		return strings.Replace(pg.DSN("postgres"), "postgres@", role+"@", 1)
	}
	return target{App: as(app), Admin: as(admin)}
}

// dropAll drops databases, some at a time: each costs the server a checkpoint.
func dropAll(t *testing.T, pg *pgtest.Cluster, names []string) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range min(4, len(names)) {
		c := pg.Admin(t)
		wg.Go(func() {
			for ; i < len(names); i += 4 {
				for _, q := range []string{"ALTER DATABASE %q IS_TEMPLATE false", "DROP DATABASE %q WITH (FORCE)"} {
					if _, err := c.Exec(context.Background(), fmt.Sprintf(q, names[i])); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func owned(t *testing.T, pg *pgtest.Cluster, role string) (names []string) {
	t.Helper()
	rows, err := pg.Admin(t).Query(context.Background(),
		"SELECT datname::text FROM pg_database WHERE datdba = $1::regrole", fmt.Sprintf("%q", role))
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(t, rows.Err())
	return names
}

// process is one application process: a db, a catalog and a plugin.
type process struct {
	place
	db      *gorm.DB
	catalog *catalog.Catalog
	plugin  *tenancy.Plugin
	servers map[string]catalog.Server
	close   func() error
}

// schema makes the table of notes; version 2 has one more column.
func (p place) schema() migrate.Migrator {
	if p.Version == 0 {
		return nil
	}
	return migrate.Func(p.Version, func(ctx context.Context, db *sql.DB) error {
		id := "integer PRIMARY KEY"
		if p.Engine == "postgres" {
			id = "bigserial PRIMARY KEY"
		}
		if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS notes (id "+id+", text text NOT NULL)"); err != nil {
			return err
		}
		if p.Version >= 2 {
			_, err := db.ExecContext(ctx, "ALTER TABLE notes ADD COLUMN color text")
			return err
		}
		return nil
	})
}

// open opens the place as a process does at its start. change may change the
// catalog's configuration.
func (p place) open(change ...func(*catalog.Config)) (_ *process, err error) {
	pr := &process{place: p, servers: map[string]catalog.Server{}}
	var closers []func() error
	pr.close = func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			_ = pr.close()
		}
	}()
	var dialector gorm.Dialector
	var engine tenancy.Engine
	if p.Engine == "sqlite" {
		dialector, engine = sqlite.Open(p.Main), tenancysqlite.Engine{}
	} else {
		dialector, engine = postgresParts(p)
	}
	pr.db, err = gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return nil, err
	}
	main, err := pr.db.DB()
	if err != nil {
		return nil, err
	}
	closers = append(closers, main.Close)
	for name, s := range p.Servers {
		if s.Dir != "" {
			server, err := tenancysqlite.NewServer(tenancysqlite.ServerConfig{Dir: s.Dir})
			if err != nil {
				return nil, err
			}
			pr.servers[name] = server
			closers = append(closers, server.Close)
			continue
		}
		server, err := tenancypg.NewServer(tenancypg.ServerConfig{App: s.App, Admin: s.Admin})
		if err != nil {
			return nil, err
		}
		pr.servers[name] = server
		closers = append(closers, server.Close)
	}
	cfg := catalog.Config{
		Servers:  pr.servers,
		Migrator: p.schema(),
		Lease:    p.Lease,
		Ready:    p.Ready,
		Drain:    time.Second,
		Poll:     50 * time.Millisecond,
		Logger:   slog.New(slog.DiscardHandler),
		Backup:   catalog.BackupDir(p.Backups),
	}
	if p.Seeds {
		cfg.Seed = func(_ context.Context, db *gorm.DB, t catalog.Tenant) error {
			return db.Where(Note{Text: "seed of " + t.ID}).FirstOrCreate(&Note{}).Error
		}
	}
	for _, fn := range change {
		fn(&cfg)
	}
	pr.catalog, err = catalog.New(pr.db, cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := pr.catalog.Migrate(ctx); err != nil {
		return nil, err
	}
	pr.plugin = tenancy.New(tenancy.Config{Resolver: pr.catalog, Engine: engine})
	closers = append(closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		return pr.plugin.Close(ctx)
	})
	if err := pr.db.Use(pr.plugin); err != nil {
		return nil, err
	}
	return pr, nil
}

func postgresParts(p place) (gorm.Dialector, tenancy.Engine) {
	return postgres.Open(p.Main), tenancypg.Engine{}
}

// start is open for a test.
func (p place) start(t *testing.T, change ...func(*catalog.Config)) *process {
	t.Helper()
	pr, err := p.open(change...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pr.close()) })
	return pr
}

func (pr *process) in(id string) *gorm.DB {
	return pr.db.WithContext(tenant.Ctx(context.Background(), id))
}

// notes reads the tenant's notes as the application does.
func (pr *process) notes(t *testing.T, id string) []string {
	t.Helper()
	var all []string
	require.NoError(t, pr.in(id).Model(&Note{}).Order("id").Pluck("text", &all).Error)
	return all
}

func (pr *process) write(t *testing.T, id, text string) {
	t.Helper()
	require.NoError(t, pr.in(id).Create(&Note{Text: text}).Error)
}

func (pr *process) create(t *testing.T, id string) catalog.Tenant {
	t.Helper()
	created, err := pr.catalog.Create(t.Context(), id, catalog.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, catalog.Active, created.State)
	return created
}

func (pr *process) createAll(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		pr.create(t, id)
	}
}

// there lists what is really on the servers, around the catalog: databases or
// files, without the templates.
func (p place) there(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, name := range sorted(p.Servers) {
		s := p.Servers[name]
		if s.Dir != "" {
			entries, err := os.ReadDir(s.Dir)
			if !errors.Is(err, os.ErrNotExist) {
				require.NoError(t, err)
			}
			for _, e := range entries {
				if !strings.Contains(e.Name(), "tpl_") && !companion(e.Name()) {
					all = append(all, name+"/"+e.Name())
				}
			}
			continue
		}
		db, err := sql.Open("pgx", s.Admin)
		require.NoError(t, err)
		rows, err := db.Query("SELECT datname::text FROM pg_database WHERE datdba = current_user::regrole AND NOT datistemplate")
		require.NoError(t, err)
		for rows.Next() {
			var database string
			require.NoError(t, rows.Scan(&database))
			all = append(all, name+"/"+database)
		}
		require.NoError(t, rows.Err())
		require.NoError(t, db.Close())
	}
	slices.Sort(all)
	return all
}

// companion reports whether a file belongs to a database that is open.
func companion(name string) bool {
	return strings.HasSuffix(name, "-wal") || strings.HasSuffix(name, "-shm")
}

// inOrder says that the catalog and the servers agree, and that nothing is
// unfinished. Suspended databases may have another name on disk.
func (pr *process) inOrder(t *testing.T) {
	t.Helper()
	var want []string
	for row, err := range pr.catalog.List(t.Context(), catalog.Filter{}) {
		require.NoError(t, err)
		require.Empty(t, row.Task, "%+v", row)
		require.Contains(t, []catalog.State{catalog.Active, catalog.Suspended, catalog.Ready}, row.State)
		name := row.Database
		if row.State == catalog.Suspended && pr.Engine == "sqlite" {
			name = ".fenced-" + name
		}
		want = append(want, row.Server+"/"+name)
	}
	slices.Sort(want)
	if want == nil {
		want = []string{}
	}
	got := pr.there(t)
	if got == nil {
		got = []string{}
	}
	require.Equal(t, want, got)
	audit, err := pr.catalog.Audit(t.Context())
	require.NoError(t, err)
	for _, o := range audit.Orphans {
		require.False(t, o.Ours, "%+v", o) // a shared server has other tests' too
	}
	require.Empty(t, audit.Missing)
}

// resume resumes until nobody is at work any more: the lease of a process that
// was killed runs out.
func (pr *process) resume(t *testing.T) (all catalog.Resumed) {
	t.Helper()
	require.Eventually(t, func() bool {
		r, err := pr.catalog.Resume(t.Context())
		require.NoError(t, err)
		all.Finished = append(all.Finished, r.Finished...)
		all.Failed = r.Failed
		return len(r.Busy) == 0
	}, 20*time.Second, 20*time.Millisecond)
	return all
}

// forgetLeases ends the leases of processes that are dead.
func (pr *process) forgetLeases(t *testing.T) {
	t.Helper()
	main, err := pr.db.DB()
	require.NoError(t, err)
	_, err = main.Exec("UPDATE tenancy_tenants SET lease_until = 1 WHERE lease_owner <> ''")
	require.NoError(t, err)
}

func sorted[K ~string, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

type gormDB = gorm.DB

// withSchema opens a second db as an application with a range of schema
// versions does.
func (pr *process) withSchema(t *testing.T, r tenancy.SchemaRange) (in func(id string) *gorm.DB) {
	t.Helper()
	dialector, engine := gorm.Dialector(sqlite.Open(pr.Main)), tenancy.Engine(tenancysqlite.Engine{})
	if pr.Engine == "postgres" {
		dialector, engine = postgresParts(pr.place)
	}
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	main, err := db.DB()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, main.Close()) })
	plugin := tenancy.New(tenancy.Config{Resolver: pr.catalog, Engine: engine, Schema: r})
	require.NoError(t, db.Use(plugin))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, plugin.Close(ctx))
	})
	return func(id string) *gorm.DB { return db.WithContext(tenant.Ctx(context.Background(), id)) }
}
