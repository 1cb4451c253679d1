package tenancysqlite

import (
	"database/sql"
	"testing"

	"github.com/gorm-tenancy/tenancy/migrate"
)

// inspected is what Inspect says of a new database with that schema.
func inspected(t *testing.T, schema string) migrate.Inspection {
	t.Helper()
	db, err := sql.Open("sqlite", ":memory:")
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	run(t, db, schema)
	i, err := Engine{}.Inspect(t.Context(), db)
	must(t, err)
	return i
}

const schema = `
	CREATE TABLE parents (id INTEGER PRIMARY KEY AUTOINCREMENT, "order" TEXT DEFAULT 'A,(b', n INT CHECK (n > 0), UNIQUE (n, "order"));
	CREATE TABLE items (id INTEGER PRIMARY KEY, parent INT NOT NULL REFERENCES parents) STRICT;
	CREATE INDEX items_parent ON items (parent);
	CREATE VIEW words AS SELECT id FROM items;
	CREATE TRIGGER touched AFTER INSERT ON items BEGIN DELETE FROM parents; END;`

func TestInspect(t *testing.T) {
	want := inspected(t, schema)
	if len(want.Schema) != 64 || want.Invalid != nil {
		t.Errorf("it is %+v", want)
	}
	for _, same := range []string{`
		create table "parents" ( -- a comment, with (one
			n INT CHECK (n>0) /* and another */, [order] text DEFAULT 'A,(b',
			id integer primary key autoincrement, UNIQUE (n, "order"));
		CREATE TABLE things (id INTEGER PRIMARY KEY, parent INT NOT NULL REFERENCES parents) STRICT;
		ALTER TABLE things RENAME TO items;
		CREATE VIEW words AS SELECT id FROM items;
		CREATE INDEX items_parent ON items(parent);
		CREATE TRIGGER touched AFTER INSERT ON items BEGIN DELETE FROM parents; END;`,
		schema + `
		CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE Migrations (id);
		CREATE INDEX x ON migrations (id); CREATE TABLE schema_migrations (id); CREATE TABLE _tenant_schema (id);
		CREATE TABLE _tenant_meta (uid); INSERT INTO parents (n) VALUES (1); ANALYZE`,
	} {
		if got := inspected(t, same); got.Schema != want.Schema {
			t.Errorf("another digest: %s", same)
		}
	}
	for _, change := range []string{
		"DROP INDEX items_parent",
		"DROP VIEW words",
		"DROP TRIGGER touched",
		"ALTER TABLE items ADD COLUMN more TEXT",
		"ALTER TABLE items RENAME COLUMN parent TO mother",
		"CREATE TABLE more (id)",
		"DROP INDEX items_parent; CREATE UNIQUE INDEX items_parent ON items (parent)",
		"DROP VIEW words; DROP TRIGGER touched; DROP TABLE parents; CREATE TABLE parents (id INTEGER PRIMARY KEY AUTOINCREMENT, \"order\" TEXT DEFAULT 'a,(b', n INT CHECK (n > 0), UNIQUE (n, \"order\"))",
	} {
		if got := inspected(t, schema+change); got.Schema == want.Schema {
			t.Errorf("no difference: %s", change)
		}
	}
	// What stands in a row of columns has an order.
	a, b := inspected(t, "CREATE TABLE a (b, c, UNIQUE (b, c))"), inspected(t, "CREATE TABLE a (b, c, UNIQUE (c, b))")
	if a.Schema == b.Schema {
		t.Error("the order of a key's columns makes no difference")
	}
}

// A text that SQLite would not have accepted is an answer too.
func FuzzPlainSQL(f *testing.F) {
	f.Add(schema)
	f.Add("CREATE TABLE a(b DEFAULT 'x''y', [c d], `e``f`, \"g")
	f.Fuzz(func(t *testing.T, text string) {
		plainSQL("table", text)
	})
}
