package adopt_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/glebarez/sqlite"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	multitenancypg "github.com/bartventer/gorm-multitenancy/postgres/v8"
	multitenancy "github.com/bartventer/gorm-multitenancy/v8"

	"github.com/gorm-tenancy/tenancy"
	columnafter "github.com/gorm-tenancy/tenancy/examples/adopt/column/after"
	columnbefore "github.com/gorm-tenancy/tenancy/examples/adopt/column/before"
	resolverafter "github.com/gorm-tenancy/tenancy/examples/adopt/dbresolver/after"
	resolverbefore "github.com/gorm-tenancy/tenancy/examples/adopt/dbresolver/before"
	handmadeafter "github.com/gorm-tenancy/tenancy/examples/adopt/handmade/after"
	handmadebefore "github.com/gorm-tenancy/tenancy/examples/adopt/handmade/before"
	schemaafter "github.com/gorm-tenancy/tenancy/examples/adopt/multitenancy/after"
	schemabefore "github.com/gorm-tenancy/tenancy/examples/adopt/multitenancy/before"
	plainafter "github.com/gorm-tenancy/tenancy/examples/adopt/plain/after"
	plainbefore "github.com/gorm-tenancy/tenancy/examples/adopt/plain/before"
	"github.com/gorm-tenancy/tenancy/examples/adopt/shop"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
	"github.com/gorm-tenancy/tenancy/tenant"
)

func TestMain(m *testing.M) {
	// The exception is GORM's cache of prepared statements (gorm
	// internal/lru/lru.go, NewLRU), which dbresolver asks for.
	goleak.VerifyTestMain(pgtest.Main(m), goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}

var passwords = map[string]string{"acme": "anvil", "bravo": "bridge"}

func do(t *testing.T, server http.Handler, customer, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.SetBasicAuth(customer, passwords[customer])
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	return w
}

func order(t *testing.T, server http.Handler, customer, title string) {
	t.Helper()
	w := do(t, server, customer, http.MethodPost, "/orders/"+title)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
}

func titles(t *testing.T, server http.Handler, customer string) (titles []string) {
	t.Helper()
	w := do(t, server, customer, http.MethodGet, "/orders")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &titles))
	return titles
}

// carriesOn proves that the new application has what the old one had, and that
// its customers are apart.
func carriesOn(t *testing.T, server http.Handler) {
	t.Helper()
	assert.Equal(t, []string{"anvil", "rocket"}, titles(t, server, "acme"))
	assert.Equal(t, []string{"bridge"}, titles(t, server, "bravo"))
	order(t, server, "acme", "skates")
	order(t, server, "bravo", "rope")
	assert.Equal(t, []string{"anvil", "rocket", "skates"}, titles(t, server, "acme"))
	assert.Equal(t, []string{"bridge", "rope"}, titles(t, server, "bravo"))
}

func oldOrders(t *testing.T, acme, bravo http.Handler) {
	t.Helper()
	order(t, acme, "acme", "anvil")
	order(t, bravo, "bravo", "bridge")
	order(t, acme, "acme", "rocket")
}

// sqliteFile makes a database, and returns its DSN.
func sqliteFile(t *testing.T, models ...any) (dsn string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	require.NoError(t, tenancysqlite.Create(t.Context(), path))
	dsn = tenancysqlite.DSN(path)
	require.NoError(t, open(t, sqlite.Open(dsn)).AutoMigrate(models...))
	return dsn
}

func open(t *testing.T, dialector gorm.Dialector) *gorm.DB {
	t.Helper()
	db, err := gorm.Open(dialector, &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	closeLater(t, db)
	return db
}

func closeLater(t *testing.T, db *gorm.DB) {
	pool, err := db.DB()
	require.NoError(t, err)
	t.Cleanup(func() { _ = pool.Close() })
}

// serve is the new application's server, whichever store it has.
func serve(t *testing.T, plugin *tenancy.Plugin, store shop.Store) http.Handler {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		assert.NoError(t, plugin.Close(ctx))
	})
	tenants, err := plainafter.Tenants(plugin)
	require.NoError(t, err)
	return shop.Server(store, tenants)
}

// forgotten proves that a query without a tenant fails.
func forgotten(t *testing.T, db *gorm.DB) {
	t.Helper()
	err := db.WithContext(t.Context()).Table("orders").Find(&[]map[string]any{}).Error
	require.ErrorIs(t, err, tenancy.ErrNoTenant)
}

func TestPlain(t *testing.T) {
	models := []any{&plainbefore.Order{}, &plainbefore.Entry{}}
	dsns := map[string]string{"acme": sqliteFile(t, models...), "bravo": sqliteFile(t, models...)}
	installation := func(dsn string) http.Handler {
		return shop.Server(plainbefore.Store{DB: open(t, sqlite.Open(dsn))}, nil)
	}
	oldOrders(t, installation(dsns["acme"]), installation(dsns["bravo"]))

	db := open(t, sqlite.Open(sqliteFile(t)))
	plugin, err := plainafter.Open(db, tenancysqlite.Engine{}, dsns)
	require.NoError(t, err)
	carriesOn(t, serve(t, plugin, plainafter.Store{DB: db}))
	forgotten(t, db)
	require.ErrorIs(t, plainafter.Store{DB: db}.Add(httptest.NewRequest("GET", "/", nil), "lost"), tenancy.ErrNoTenant)
}

func TestColumn(t *testing.T) {
	for name, use := range map[string]struct {
		engine  tenancy.Engine
		dialect func(dsn string) gorm.Dialector
		create  func(models ...any) (dsn string)
	}{
		"sqlite": {tenancysqlite.Engine{}, sqlite.Open, func(models ...any) string { return sqliteFile(t, models...) }},
		"postgres": {tenancypg.Engine{}, postgres.Open, func(models ...any) string {
			c := pgtest.Shared(t)
			dsn := c.DSN(c.CreateDatabase(t))
			require.NoError(t, open(t, postgres.Open(dsn)).AutoMigrate(models...))
			return dsn
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "postgres" {
				pgtest.Shared(t) // skips before anything else
			}
			main := use.create(&columnbefore.Order{})
			old := shop.Server(columnbefore.Store{DB: open(t, use.dialect(main))}, nil)
			oldOrders(t, old, old)

			db := open(t, use.dialect(main))
			plugin, err := plainafter.Open(db, use.engine, map[string]string{
				"acme": use.create(&columnafter.Order{}), "bravo": use.create(&columnafter.Order{})})
			require.NoError(t, err)
			server := serve(t, plugin, columnafter.Store{DB: db})
			early := columnafter.Order{Title: "an order before the move"} // it has the id of an old one
			require.NoError(t, db.WithContext(tenant.Ctx(t.Context(), "acme")).Create(&early).Error)
			require.ErrorContains(t, columnafter.Move(t.Context(), db, "acme"), "acme has 1 orders already")
			require.NoError(t, db.WithContext(tenant.Ctx(t.Context(), "acme")).Delete(&early).Error)
			for customer := range passwords {
				require.NoError(t, columnafter.Move(t.Context(), db, customer))
			}
			require.ErrorContains(t, columnafter.Move(t.Context(), db, "acme"), "acme has 2 orders already")
			var ids []uint
			require.NoError(t, db.WithContext(tenant.Ctx(t.Context(), "acme")).Model(&columnafter.Order{}).Order("id").Pluck("id", &ids).Error)
			require.Equal(t, []uint{1, 3}, ids, "ids stay as they are")
			carriesOn(t, server)
			forgotten(t, db)
		})
	}
}

func TestDBResolver(t *testing.T) {
	main := sqliteFile(t)
	dsns := map[string]string{"acme": sqliteFile(t, &resolverbefore.Order{}), "bravo": sqliteFile(t, &resolverbefore.Order{})}
	before := open(t, sqlite.Open(main))
	require.NoError(t, resolverbefore.Open(before, func(dsn string) gorm.Dialector {
		db := open(t, sqlite.Open(dsn)) // dbresolver's own pools can't be closed
		return &sqlite.Dialector{Conn: db.ConnPool}
	}, dsns))
	old := shop.Server(resolverbefore.Store{DB: before}, nil)
	oldOrders(t, old, old)

	db := open(t, sqlite.Open(main))
	plugin, err := resolverafter.Open(db, tenancysqlite.Engine{}, dsns)
	require.NoError(t, err)
	carriesOn(t, serve(t, plugin, resolverafter.Store{DB: db}))
	forgotten(t, db)
}

func TestHandmade(t *testing.T) {
	main := sqliteFile(t, &handmadebefore.Place{})
	before := open(t, sqlite.Open(main))
	for customer := range passwords {
		require.NoError(t, before.Create(&handmadebefore.Place{Customer: customer, DSN: sqliteFile(t, &handmadebefore.Order{})}).Error)
	}
	old := shop.Server(&handmadebefore.Store{Main: before, Dialect: func(dsn string) gorm.Dialector {
		db := open(t, sqlite.Open(dsn)) // it closes none
		return &sqlite.Dialector{Conn: db.ConnPool}
	}}, nil)
	oldOrders(t, old, old)

	db := open(t, sqlite.Open(main))
	plugin, err := handmadeafter.Open(db, tenancysqlite.Engine{})
	require.NoError(t, err)
	carriesOn(t, serve(t, plugin, &handmadeafter.Store{DB: db}))
	forgotten(t, db)
	require.ErrorIs(t, plugin.Check(t.Context(), "charlie"), tenancy.ErrTenantNotFound)
}

func TestMultitenancy(t *testing.T) {
	c := pgtest.Shared(t)
	main := c.CreateDatabase(t)
	before, err := multitenancy.Open(multitenancypg.Open(c.DSN(main)), &gorm.Config{Logger: logger.Discard})
	require.NoError(t, err)
	closeLater(t, before.DB)
	require.NoError(t, before.RegisterModels(t.Context(), &schemabefore.Order{}, &schemabefore.Customer{}))
	require.NoError(t, before.MigrateSharedModels(t.Context()))
	store := schemabefore.Store{DB: before}
	for customer := range passwords {
		require.NoError(t, store.SignUp(t.Context(), customer))
	}
	old := shop.Server(store, nil)
	oldOrders(t, old, old)

	server, err := tenancypg.NewServer(tenancypg.ServerConfig{Admin: c.DSN(main), App: c.DSN(main)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	db := open(t, postgres.Open(c.DSN(main)))
	after, plugin, err := schemaafter.Open(t.Context(), db, server)
	require.NoError(t, err)
	handler := serve(t, plugin, after)
	for customer := range passwords {
		database := move(t, c, main, customer)
		require.NoError(t, after.Take(t.Context(), customer, database))
	}
	carriesOn(t, handler)
	forgotten(t, db)

	var customers []schemaafter.Customer
	require.NoError(t, db.WithContext(t.Context()).Order("schema_name").Find(&customers).Error)
	require.Len(t, customers, 2, "main's own table")
	require.NoError(t, after.SignUp(t.Context(), "charlie"))
	require.NoError(t, plugin.Check(t.Context(), "charlie"))
	for _, customer := range []string{"acme", "bravo", "charlie"} {
		removed, err := after.Tenants.Get(t.Context(), customer)
		require.NoError(t, err)
		t.Cleanup(func() { c.Exec(t, main, `DROP DATABASE "`+removed.Database+`" WITH (FORCE)`) })
	}
}

// move runs the commands of docs/adopt.md.
func move(t *testing.T, c *pgtest.Cluster, main, customer string) (database string) {
	t.Helper()
	_, rest, _ := strings.Cut(read(t, "../../docs/adopt.md"), "```sh\ncreatedb")
	script, _, ok := strings.Cut("createdb"+rest, "```")
	require.True(t, ok)
	database = customer + "_of_" + main
	script = strings.NewReplacer("shop_acme", database, "acme", customer, " shop\n", " "+main+"\n").Replace(script)

	server, err := url.Parse(c.DSN(main))
	require.NoError(t, err)
	password, _ := server.User.Password()
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(c.Program("psql"))+":"+os.Getenv("PATH"),
		"PGHOST="+server.Hostname(), "PGPORT="+server.Port(), "PGUSER="+server.User.Username(), "PGPASSWORD="+password)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return database
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// TestDocs proves that what docs/adopt.md shows is in the programs that are
// tested here.
func TestDocs(t *testing.T) {
	var programs strings.Builder
	files, err := filepath.Glob("*/*/*.go")
	require.NoError(t, err)
	for _, file := range files {
		programs.WriteString(read(t, file))
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, "../../docs/adopt.md"), -1)
	require.Greater(t, len(blocks), 8)
	for _, block := range blocks {
		assert.Contains(t, programs.String(), block[1])
	}
}
