package sandbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// journal is what a case saw.
type journal struct{ lines []string }

func (j *journal) note(format string, args ...any) {
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// err notes an error's kind: its SQLSTATE, or else its text.
func (j *journal) err(what string, err error) {
	if state := sqlerr.State(err); state != "" {
		j.note("%s: SQLSTATE %s", what, state)
		return
	}
	j.note("%s: %v", what, err)
}

var errInner = errors.New("inner")

// cases are what applications do with GORM.
var cases = []struct {
	name string
	run  func(db *gorm.DB, j *journal)
}{
	{"nested transaction, inner rolled back", func(db *gorm.DB, j *journal) {
		j.err("outer", db.Transaction(func(tx *gorm.DB) error {
			j.err("create", tx.Create(&user{Name: "outer"}).Error)
			j.err("inner", tx.Transaction(func(tx *gorm.DB) error {
				j.err("create", tx.Create(&user{Name: "inner"}).Error)
				return errInner
			}))
			return tx.Create(&user{Name: "after"}).Error
		}))
	}},
	{"inner error propagates", func(db *gorm.DB, j *journal) {
		j.err("outer", db.Transaction(func(tx *gorm.DB) error {
			j.err("create", tx.Create(&user{Name: "outer"}).Error)
			return tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&user{Name: "outer"}).Error })
		}))
		j.err("after", db.Create(&user{Name: "outer"}).Error)
	}},
	{"inner duplicate, outer goes on", func(db *gorm.DB, j *journal) {
		j.err("outer", db.Transaction(func(tx *gorm.DB) error {
			j.err("create", tx.Create(&user{Name: "a"}).Error)
			j.err("inner", tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&user{Name: "a"}).Error }))
			return tx.Create(&user{Name: "b"}).Error
		}))
	}},
	{"statements while rows are open", func(db *gorm.DB, j *journal) {
		j.err("create", db.Create([]user{{Name: "a"}, {Name: "b"}}).Error)
		for _, all := range []bool{false, true} {
			j.err("transaction", db.Transaction(func(tx *gorm.DB) error {
				rows, err := tx.Raw("SELECT name FROM users ORDER BY id").Rows()
				j.err("rows", err)
				defer func() { j.err("close", rows.Close()) }()
				for rows.Next() {
					var name string
					j.err("scan", rows.Scan(&name))
					j.note("%s", name)
					if !all {
						j.note("exec fails: %v", tx.Exec("UPDATE users SET age = 1").Error != nil) // driver.ErrBadConn, or pgx's "conn busy"
						j.note("create fails: %v", tx.Create(&user{Name: "c"}).Error != nil)       // driver.ErrBadConn, or pgx's "conn busy"
						j.note("query fails: %v", tx.Find(&[]user{}).Error != nil)                 // driver.ErrBadConn, or pgx's "conn busy"
						break
					}
				}
				if all { // the last Next has closed them
					j.err("exec", tx.Exec("UPDATE users SET age = 2").Error)
				}
				return nil
			}))
		}
		rows, err := db.Raw("SELECT name FROM users ORDER BY id").Rows()
		j.err("rows", err)
		j.note("%v", rows.Next())
		j.err("close", rows.Close())
		j.err("exec", db.Exec("UPDATE users SET age = 3").Error)
	}},
	{"savepoints", func(db *gorm.DB, j *journal) {
		tx := db.Begin()
		j.err("a", tx.Create(&user{Name: "a"}).Error)
		j.err("savepoint", tx.SavePoint("one").Error)
		j.err("b", tx.Create(&user{Name: "b"}).Error)
		j.err("duplicate", tx.Create(&user{Name: "a"}).Error)
		j.err("in a failed transaction", tx.Create(&user{Name: "c"}).Error)
		j.err("rollback to", tx.RollbackTo("one").Error)
		j.err("d", tx.Create(&user{Name: "d"}).Error)
		j.err("unknown savepoint", tx.Exec("ROLLBACK TO SAVEPOINT nobodys").Error)
		j.err("rollback to", tx.RollbackTo("one").Error)
		j.err("e", tx.Create(&user{Name: "e"}).Error)
		j.err("commit", tx.Commit().Error)
	}},
	{"begin and rollback by hand", func(db *gorm.DB, j *journal) {
		tx := db.Begin()
		j.err("create", tx.Create(&user{Name: "a"}).Error)
		j.err("rollback", tx.Rollback().Error)
		j.err("again", tx.Rollback().Error)
		j.err("used after", tx.Create(&user{Name: "b"}).Error)
		j.err("commit", tx.Commit().Error)
	}},
	{"begin and commit by hand", func(db *gorm.DB, j *journal) {
		tx := db.Begin()
		j.err("create", tx.Create(&user{Name: "a"}).Error)
		j.err("commit", tx.Commit().Error)
		j.err("rollback", tx.Rollback().Error)
		j.err("duplicate", db.Create(&user{Name: "a"}).Error)
	}},
	{"commit of a failed transaction", func(db *gorm.DB, j *journal) {
		tx := db.Begin()
		j.err("create", tx.Create(&user{Name: "a"}).Error)
		j.err("bad", tx.Exec("SELECT 1/0").Error)
		j.err("poisoned", tx.Exec("SELECT 1").Error)
		j.err("commit", tx.Commit().Error)
		j.err("after", db.Create(&user{Name: "b"}).Error)
	}},
	{"duplicate key, then on", func(db *gorm.DB, j *journal) {
		j.err("a", db.Create(&user{Name: "a"}).Error)
		j.err("again", db.Create(&user{Name: "a"}).Error)
		j.err("b", db.Create(&user{Name: "b"}).Error)
	}},
	{"duplicate key in a transaction, then on", func(db *gorm.DB, j *journal) {
		j.err("transaction", db.Transaction(func(tx *gorm.DB) error {
			j.err("a", tx.Create(&user{Name: "a"}).Error)
			j.err("again", tx.Create(&user{Name: "a"}).Error)
			j.err("b", tx.Create(&user{Name: "b"}).Error)
			return nil
		}))
		j.err("after", db.Create(&user{Name: "c"}).Error)
	}},
	{"panic in a transaction", func(db *gorm.DB, j *journal) {
		func() {
			defer func() { j.note("panic: %v", recover()) }()
			_ = db.Transaction(func(tx *gorm.DB) error {
				j.err("create", tx.Create(&user{Name: "a"}).Error)
				panic("in the middle")
			})
		}()
		j.err("after", db.Create(&user{Name: "b"}).Error)
	}},
	{"panic in a nested transaction", func(db *gorm.DB, j *journal) {
		defer func() { j.note("panic: %v", recover()) }()
		_ = db.Transaction(func(tx *gorm.DB) error {
			j.err("create", tx.Create(&user{Name: "a"}).Error)
			return tx.Transaction(func(tx *gorm.DB) error {
				j.err("create", tx.Create(&user{Name: "b"}).Error)
				panic("in the middle")
			})
		})
	}},
	{"FirstOrCreate and OnConflict", func(db *gorm.DB, j *journal) {
		for range 2 {
			u := user{}
			j.err("first or create", db.Where(user{Name: "a"}).Attrs(user{Age: 7}).FirstOrCreate(&u).Error)
			j.note("%+v", u)
		}
		r := db.Clauses(clause.OnConflict{DoNothing: true}).Create(&user{Name: "a"})
		j.err(fmt.Sprint("do nothing: ", r.RowsAffected), r.Error)
		r = db.Clauses(clause.OnConflict{
			Columns: []clause.Column{{Name: "name"}}, DoUpdates: clause.Assignments(map[string]any{"age": 9}),
		}).Create(&user{Name: "a"})
		j.err(fmt.Sprint("update: ", r.RowsAffected), r.Error)
	}},
	{"batches", func(db *gorm.DB, j *journal) {
		var all []user
		for i := range 25 {
			all = append(all, user{Name: fmt.Sprint("u", i), Age: i})
		}
		r := db.CreateInBatches(&all, 10)
		j.err(fmt.Sprint(r.RowsAffected, " last id ", all[24].ID), r.Error)
		var batch []user
		r = db.Where("age > 3").FindInBatches(&batch, 10, func(tx *gorm.DB, n int) error {
			return tx.Model(&user{}).Where("id = ?", batch[0].ID).Update("age", 100).Error
		})
		j.err(fmt.Sprint(r.RowsAffected), r.Error)
		all = []user{{Name: "new"}, {Name: "u1"}}
		j.err("a batch with a duplicate", db.CreateInBatches(&all, 1).Error)
	}},
	{"rows open while writing", func(db *gorm.DB, j *journal) {
		j.err("create", db.Create([]user{{Name: "a"}, {Name: "b"}, {Name: "c"}}).Error)
		rows, err := db.Model(&user{}).Order("id").Rows()
		j.err("rows", err)
		for rows.Next() {
			var u user
			j.err("scan", db.ScanRows(rows, &u))
			j.err("write", db.Model(&user{}).Where("id = ?", u.ID).Update("age", u.ID*10).Error)
		}
		j.err("rows", rows.Err())
		j.err("close", rows.Close())
	}},
	{"an error after some rows", func(db *gorm.DB, j *journal) {
		rows, err := db.Raw("SELECT 10/(3-g) FROM generate_series(1, 5) g").Rows()
		j.err("rows", err)
		n := 0
		for rows.Next() {
			n++
		}
		j.err(fmt.Sprint(n, " rows"), rows.Err())
		_ = rows.Close()
		j.err("after", db.Create(&user{Name: "a"}).Error)
	}},
	{"deferred constraint, in a transaction", func(db *gorm.DB, j *journal) {
		j.err("mended", db.Transaction(func(tx *gorm.DB) error {
			j.err("order", tx.Create(&order{Title: "early", UserID: ptr(int64(1))}).Error)
			return tx.Create(&user{ID: 1, Name: "late"}).Error
		}))
		j.err("violated", db.Transaction(func(tx *gorm.DB) error {
			j.err("user", tx.Create(&user{ID: 2, Name: "lost with it"}).Error)
			return tx.Create(&order{Title: "orphan", UserID: ptr(int64(99))}).Error
		}))
		j.err("mended again", db.Transaction(func(tx *gorm.DB) error { // it is still deferred
			j.err("order", tx.Create(&order{Title: "early", UserID: ptr(int64(3))}).Error)
			return tx.Create(&user{ID: 3, Name: "late too"}).Error
		}))
	}},
	{"deferred constraint, outside", func(db *gorm.DB, j *journal) {
		j.err("orphan", db.Exec("INSERT INTO orders (title, user_id) VALUES ('orphan', 99)").Error)
		j.err("mended", db.Exec("WITH o AS (INSERT INTO orders (title, user_id) VALUES ('early', 5)) INSERT INTO users (id, name) VALUES (5, 'late')").Error)
		var id int64
		j.err("returning", db.Raw("INSERT INTO orders (title, user_id) VALUES ('orphan', 99) RETURNING user_id").Scan(&id).Error)
		j.err("GORM's own transaction", db.Create(&order{UserID: ptr(int64(99))}).Error)
	}},
	{"SET CONSTRAINTS lasts for its transaction", func(db *gorm.DB, j *journal) {
		swap := func(tx *gorm.DB) error { // of two unique values
			j.err("first", tx.Exec("UPDATE orders SET slot = 2 WHERE title = 'a'").Error)
			return tx.Exec("UPDATE orders SET slot = 1 WHERE title = 'b'").Error
		}
		j.err("create", db.Create([]order{{Title: "a", Slot: ptr(1)}, {Title: "b", Slot: ptr(2)}}).Error)
		j.err("swap", db.Transaction(func(tx *gorm.DB) error {
			j.err("set", tx.Exec("SET CONSTRAINTS slots DEFERRED").Error)
			return swap(tx)
		}))
		j.err("not deferred any more", db.Transaction(swap))
		j.err("immediate", db.Transaction(func(tx *gorm.DB) error {
			j.err("set", tx.Exec("SET CONSTRAINTS ALL IMMEDIATE").Error)
			return tx.Create(&order{UserID: ptr(int64(99))}).Error
		}))
		j.err("deferred again", db.Transaction(func(tx *gorm.DB) error {
			j.err("order", tx.Create(&order{Title: "early", UserID: ptr(int64(7))}).Error)
			return tx.Create(&user{ID: 7, Name: "late"}).Error
		}))
	}},
	{"a deferred constraint that comes in a test", func(db *gorm.DB, j *journal) {
		j.err("create", db.Exec("CREATE TABLE lines (id int, of bigint REFERENCES orders DEFERRABLE INITIALLY DEFERRED)").Error)
		j.err("violated", db.Exec("INSERT INTO lines VALUES (1, 99)").Error)
		j.err("mended", db.Transaction(func(tx *gorm.DB) error {
			j.err("line", tx.Exec("INSERT INTO lines VALUES (2, 1)").Error)
			return tx.Create(&order{ID: 1}).Error
		}))
		j.err("drop", db.Exec("DROP TABLE lines").Error)
		j.err("after", db.Exec("INSERT INTO orders (user_id) VALUES (99)").Error)
	}},
	{"schema changes", func(db *gorm.DB, j *journal) {
		var all []map[string]any
		j.err("create", db.Create(&user{Name: "a"}).Error)
		j.err("find", db.Table("users").Select("name").Find(&all).Error)
		j.err("rolled back", db.Transaction(func(tx *gorm.DB) error {
			j.err("alter", tx.Exec("ALTER TABLE users ADD COLUMN mail text").Error)
			return errInner
		}))
		j.note("%t", db.Migrator().HasColumn(&user{}, "mail"))
		j.err("alter", db.Exec("ALTER TABLE users ADD COLUMN mail text").Error)
		j.note("%t", db.Migrator().HasColumn(&user{}, "mail"))
		j.err("drop", db.Exec("ALTER TABLE users DROP COLUMN mail").Error)
	}},
	{"raw Exec and several statements in one", func(db *gorm.DB, j *journal) {
		r := db.Exec("INSERT INTO users (name) VALUES (?), (?)", "a", "b")
		j.err(fmt.Sprint(r.RowsAffected), r.Error)
		j.err("two", db.Exec("INSERT INTO users (name) VALUES ('c'); INSERT INTO users (name) VALUES ('d')").Error)
		j.err("one is bad", db.Exec("INSERT INTO users (name) VALUES ('e'); INSERT INTO users (name) VALUES ('a')").Error)
		j.err("syntax", db.Exec("SELEC 1").Error)
		j.err("no table", db.Exec("SELECT * FROM nowhere").Error)
		j.err("a value that can't be sent", db.Exec("INSERT INTO users (name) VALUES (?)", struct{ X chan int }{}).Error)
	}},
	{"Connection", func(db *gorm.DB, j *journal) {
		j.err("connection", db.Connection(func(tx *gorm.DB) error {
			// What Connection hands out keeps its first error, and then begins a
			// transaction that it never ends.
			tx = tx.Session(&gorm.Session{})
			j.err("set", tx.Exec("SET application_name = 'mine'").Error)
			j.err("create", tx.Create(&user{Name: "a"}).Error)
			j.err("duplicate", tx.Create(&user{Name: "a"}).Error)
			var name string
			j.err("show", tx.Raw("SHOW application_name").Scan(&name).Error)
			j.note("%s", name)
			return tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&user{Name: "b"}).Error })
		}))
	}},
	{"read-only transaction", func(db *gorm.DB, j *journal) {
		readOnly := &sql.TxOptions{ReadOnly: true}
		j.err("write", db.Transaction(func(tx *gorm.DB) error {
			var n int64
			j.err(fmt.Sprint("count ", n), tx.Model(&user{}).Count(&n).Error)
			return tx.Create(&user{Name: "a"}).Error
		}, readOnly))
		j.err("after", db.Create(&user{Name: "b"}).Error)
		j.err("read", db.Transaction(func(tx *gorm.DB) error { return tx.First(&user{}).Error }, readOnly))
		j.err("after", db.Create(&user{Name: "c"}).Error)
	}},
	{"isolation levels", func(db *gorm.DB, j *journal) {
		for level := sql.LevelDefault; level <= sql.LevelLinearizable; level++ {
			j.err(level.String(), db.Transaction(func(tx *gorm.DB) error {
				return tx.Create(&user{Name: level.String()}).Error
			}, &sql.TxOptions{Isolation: level}))
		}
	}},
	{"an ended ctx", func(db *gorm.DB, j *journal) {
		ctx, cancel := context.WithCancel(db.Statement.Context)
		err := db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			j.err("create", tx.Create(&user{Name: "a"}).Error)
			cancel() // database/sql rolls back, sooner or later
			return nil
		})
		j.note("committed: %t", err == nil)
		j.err("after", db.Create(&user{Name: "c"}).Error)
		j.err("ended before", db.WithContext(ctx).Create(&user{Name: "d"}).Error)
	}},
	{"locks and values", func(db *gorm.DB, j *journal) {
		j.err("create", db.Create(&user{Name: "a"}).Error)
		j.err("for update", db.Transaction(func(tx *gorm.DB) error {
			var u user
			return tx.Clauses(clause.Locking{Strength: "UPDATE"}).First(&u, "name = ?", "a").Error
		}))
		j.err("none", db.First(&user{}, "name = ?", "nobody").Error)
		var got map[string]any
		j.err("values", db.Raw("SELECT 1::int2 a, 1.5::float4 b, 'x'::bytea c, '{1,2}'::int[] d, '{\"a\":1}'::jsonb e, NULL::text f, "+
			"'2020-01-02'::date g, 12.34::numeric(6,2) h, true i, '01020304-0506-0708-090a-0b0c0d0e0f10'::uuid k, '1 day'::interval l").Scan(&got).Error)
		for _, name := range strings.Split("abcdefghikl", "") {
			j.note("%s %T %v", name, got[name], got[name])
		}
	}},
}

// configs are GORM's ways to run a statement.
var configs = map[string]gorm.Config{
	"default":                {},
	"PrepareStmt":            {PrepareStmt: true},
	"SkipDefaultTransaction": {SkipDefaultTransaction: true},
}

// TestSame runs each case on a database and in a sandbox: both with GORM alone
// and with the plugin.
func TestSame(t *testing.T) {
	plain, boxed := newPlace(t), newPlace(t)
	for name, cfg := range configs {
		for _, plugin := range []bool{false, true} {
			for _, c := range cases {
				t.Run(fmt.Sprintf("%s/plugin=%t/%s", name, plugin, c.name), func(t *testing.T) {
					open := func(t *testing.T, pool *sql.DB) *gorm.DB { return openGORM(t, pool, cfg) }
					run := func(t *testing.T, p place) []string {
						pool := sql.OpenDB(p.connector(t))
						defer pool.Close()
						return play(open(t, pool), c.run)
					}
					runBoxed := func(t *testing.T, s tenancy.Database) []string {
						pool := sql.OpenDB(s.Connector)
						defer pool.Close()
						return play(open(t, pool), c.run)
					}
					if plugin {
						run = func(t *testing.T, p place) []string {
							return throughPlugin(t, cfg, tenancy.Database{DSN: p.pg.DSN(p.name)}, c.run)
						}
						runBoxed = func(t *testing.T, d tenancy.Database) []string { return throughPlugin(t, cfg, d, c.run) }
					}

					plain.empty(t)
					boxed.empty(t)
					want := run(t, plain)
					s := newSandbox(t, boxed)
					if err := s.Begin(t.Context()); err != nil {
						t.Fatal(err)
					}
					got := runBoxed(t, tenancy.Database{Connector: s.Connector(), Server: "sandbox"})
					if !slices.Equal(got, want) {
						t.Errorf("in a sandbox:\n%s\non a database:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
					end(t, boxed, s)
				})
			}
		}
	}
}

// play runs a case, and notes what is in the tables at its end.
func play(db *gorm.DB, run func(*gorm.DB, *journal)) []string {
	var j journal
	run(db, &j)
	for _, query := range []string{
		"SELECT * FROM users ORDER BY id", "SELECT * FROM orders ORDER BY id", "SELECT * FROM audits ORDER BY id",
	} {
		var all []map[string]any
		j.err(query, db.Raw(query).Scan(&all).Error)
		for _, row := range all {
			if slot, ok := row["slot"].(*int32); ok && slot != nil {
				row["slot"] = *slot
			}
			j.note("%v", row)
		}
	}
	return j.lines
}

// empty empties the database, also of what sequences remember.
func (p place) empty(t *testing.T) {
	t.Helper()
	p.pg.Exec(t, p.name, "TRUNCATE users, orders, audits RESTART IDENTITY")
}

// throughPlugin runs a case as tenant acme, whose database is d.
func throughPlugin(t *testing.T, cfg gorm.Config, d tenancy.Database, run func(*gorm.DB, *journal)) []string {
	t.Helper()
	pg := pgtest.Shared(t)
	main, err := sql.Open("pgx", pg.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer main.Close()
	db := openGORM(t, main, cfg)
	plugin := tenancy.New(tenancy.Config{Resolver: tenancy.Static{"acme": d}, Engine: tenancypg.Engine{}})
	if err := db.Use(plugin); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := plugin.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	return play(db.WithContext(tenant.Ctx(t.Context(), "acme")), run)
}
