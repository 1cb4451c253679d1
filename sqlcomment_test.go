package tenancy_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

func withSQLComment() envOption {
	return withConfig(func(c *tenancy.Config) { c.SQLComment = true })
}

// queries are the calls that have SQL, by database.
func (e *env) queries() map[string][]string {
	out := map[string][]string{}
	for _, call := range e.calls.list() {
		database, call, _ := strings.Cut(call, ": ")
		if verb, query, ok := strings.Cut(call, " "); ok && verb != "connect" && verb != "begin" {
			out[database] = append(out[database], query)
		}
	}
	return out
}

// everyWay sends a statement to the tenant's database in each way that leads
// there.
func everyWay(t *testing.T, e *env, id string) {
	ctx := e.ctx(id)
	var orders []Order
	require.NoError(t, e.in(id).Find(&orders).Error)
	require.NoError(t, e.in(id).Preload("Orders").Joins("Card").Find(&[]Customer{}).Error)
	require.NoError(t, e.in(id).Create(&Tag{Name: "new"}).Error)
	require.NoError(t, e.in(id).Model(&Tag{}).Where("name = ?", "new").Update("name", "it's").Error)
	require.NoError(t, e.in(id).Where("name = ?", "it's").Delete(&Tag{}).Error)
	require.NoError(t, e.in(id).Exec("UPDATE tags SET name = name WHERE id = ?", 1).Error)
	var n int
	require.NoError(t, e.in(id).Raw("SELECT count(*) FROM orders").Row().Scan(&n))
	require.Equal(t, 2, n)
	require.NoError(t, e.in(id).Transaction(func(tx *gorm.DB) error {
		inner, err := tenancy.SQLTx(tx)
		require.NoError(t, err)
		stmt, err := inner.PrepareContext(ctx, "SELECT count(*) FROM orders")
		require.NoError(t, err)
		require.NoError(t, stmt.QueryRowContext(ctx).Scan(&n))
		require.NoError(t, stmt.Close())
		return tx.First(&Order{}).Error
	}))
	require.NoError(t, tenancy.Conn(ctx, e.db, func(conn *sql.Conn) error {
		return conn.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&n)
	}))
	handle, err := e.plugin.OpenDB(ctx, id)
	require.NoError(t, err)
	require.NoError(t, handle.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&n))
	require.NoError(t, handle.Close())
	require.True(t, e.in(id).Migrator().HasTable(&Order{}))
}

func TestSQLComment(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withSQLComment())
		for _, id := range []string{idA, idB} {
			everyWay(t, e, id)
		}
		require.NoError(t, e.main().First(&Plan{}).Error)
		require.NoError(t, e.in(idA).First(&Plan{}).Error) // main's, under a tenant

		sent := e.queries()
		for _, id := range []string{idA, idB} {
			require.Greater(t, len(sent[id]), 12)
			for _, query := range sent[id] {
				assert.True(t, strings.HasSuffix(query, " /*tenant='"+id+"'*/"), query)
				assert.Equal(t, 1, strings.Count(query, "tenant="), query)
			}
		}
		require.Len(t, sent[mainName], 2)
		for _, query := range sent[mainName] {
			assert.NotContains(t, query, "/*")
		}
	})
}

func TestSQLCommentIsOffByDefault(t *testing.T) {
	e := openSQLite(t)
	everyWay(t, e, idA)
	for _, query := range e.queries()[idA] {
		assert.NotContains(t, query, "/*")
	}
}

func TestSQLCommentOfReplicas(t *testing.T) {
	e := openSQLite(t, withSQLComment(), withReplicas(1))
	require.NoError(t, e.in(idA).First(&Order{}).Error)
	sent := e.queries()
	require.Len(t, sent[replicaOf(idA, 1)], 1, "%v", sent)
	assert.True(t, strings.HasSuffix(sent[replicaOf(idA, 1)][0], " /*tenant='acme'*/"), sent)
}

// TestSQLCommentBehindAnything has statements whose end could change what the
// comment means, or be changed by it.
func TestSQLCommentBehindAnything(t *testing.T) {
	engines(t, func(t *testing.T, open func(...envOption) *env) {
		e := open(withSQLComment())
		queries := []string{
			"SELECT 7",
			"SELECT 7;",
			"SELECT 7 ; \n",
			"SELECT 7 -- seven",
			"-- a number\nSELECT 7",
			"SELECT 7 /* seven */",
			"SELECT CASE WHEN '--' = '-' || '-' THEN 7 END",
			"/*traceparent='00-0'*/ SELECT 7",
		}
		if e.name == "postgres" { // SQLite's driver wants nothing behind a semicolon
			queries = append(queries, "SELECT 7; -- seven")
		}
		for _, query := range queries {
			for _, in := range []*gorm.DB{e.in(idA), e.in(idB)} {
				var got int
				require.NoError(t, in.Raw(query).Scan(&got).Error, query)
				assert.Equal(t, 7, got, query)
			}
		}
		for _, call := range e.queries()[idA] {
			end := call[strings.LastIndexByte(call, '\n')+1:]
			assert.True(t, strings.HasSuffix(end, "/*tenant='acme'*/"), call)
			before, _, _ := strings.Cut(end, "/*tenant=")
			assert.True(t, !strings.Contains(before, "--"), call)
		}
		for _, query := range []string{"SELECT 'open", `SELECT "open`, "SELECT (7"} {
			var got int
			require.Error(t, e.in(idA).Raw(query).Scan(&got).Error, query)
		}
		require.NoError(t, e.in(idA).Exec("CREATE TABLE a (x int); CREATE TABLE b (x int);").Error)
		require.NoError(t, e.in(idA).Exec("INSERT INTO b VALUES (1)").Error)
	})
}

// TestSQLCommentInTheServersLog is what the comment is for: a statement that the
// server logs with its time, in each way in which pgx sends it.
func TestSQLCommentInTheServersLog(t *testing.T) {
	c := pgtest.Start(t, pgtest.Setting("log_min_duration_statement", "0"), pgtest.Setting("log_line_prefix", "%d "))
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			name := c.CreateDatabase(t)
			e := openPostgres(t, withSQLComment(), withConfig(func(cfg *tenancy.Config) {
				cfg.Resolver = tenancy.Static{"acme_" + mode: {DSN: c.DSN(name) + "&default_query_exec_mode=" + mode}}
			}))
			var got int
			require.NoError(t, e.in("acme_"+mode).Raw("SELECT ?::int AS seven", 7).Scan(&got).Error)
			assert.Equal(t, 7, got)
			assert.Contains(t, c.Log(), fmt.Sprintf("AS seven /*tenant='acme_%s'*/", mode))
		})
	}
}

// TestSQLCommentInAFilesSchema shows what SQLite keeps of it: the text of what
// made a view or an index has it, and the schemas of two tenants are the same all
// the same.
func TestSQLCommentInAFilesSchema(t *testing.T) {
	e := openSQLite(t, withSQLComment())
	type Label struct {
		ID   uint
		Name string `gorm:"uniqueIndex"`
	}
	var digests []string
	for _, id := range []string{idA, idB} {
		for range 2 { // the second time the Migrator reads what it has made
			require.NoError(t, e.in(id).AutoMigrate(&Label{}))
			require.True(t, e.in(id).Migrator().HasIndex(&Label{}, "Name"))
		}
		require.NoError(t, e.in(id).Exec("CREATE VIEW names AS SELECT name FROM labels").Error)
		var kept int
		require.NoError(t, e.in(id).Raw("SELECT count(*) FROM sqlite_schema WHERE sql LIKE ?", "%/*tenant='"+id+"'*/").Row().Scan(&kept))
		assert.Equal(t, 2, kept)
		handle, err := e.plugin.OpenDB(e.ctx(id), id)
		require.NoError(t, err)
		got, err := tenancysqlite.Engine{}.Inspect(t.Context(), handle)
		require.NoError(t, err)
		require.NoError(t, handle.Close())
		digests = append(digests, got.Schema)
	}
	assert.Equal(t, digests[0], digests[1])
}

// TestSQLCommentPreparesNoMore shows that pgx, which prepares by text, prepares
// a statement once per connection all the same.
func TestSQLCommentPreparesNoMore(t *testing.T) {
	c := pgtest.Shared(t)
	e := openPostgres(t, withSQLComment(), withConfig(func(cfg *tenancy.Config) {
		cfg.Resolver = tenancy.Static{idA: {DSN: c.DSN(c.CreateDatabase(t))}}
	}))
	ctx := e.ctx(idA)
	require.NoError(t, tenancy.Conn(ctx, e.db, func(conn *sql.Conn) error {
		for i := range 5 {
			var got int
			require.NoError(t, conn.QueryRowContext(ctx, "SELECT $1::int", i).Scan(&got))
		}
		return tenancypg.Raw(conn, func(pc *pgx.Conn) error {
			var n int
			require.NoError(t, pc.QueryRow(ctx, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int%'").Scan(&n))
			assert.Equal(t, 1, n)
			return nil
		})
	}))
}
