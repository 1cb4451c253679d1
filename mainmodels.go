package tenancy

import (
	"fmt"
	"reflect"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// mainModels knows which models and tables live in the main database. It is
// read-only once made.
type mainModels struct {
	types  map[reflect.Type]bool
	tables map[string]bool // base names in lower case: of the types, and named
	named  map[string]bool // base names in lower case, listed as strings
}

func newMainModels(db *gorm.DB, models []any) (*mainModels, error) {
	m := &mainModels{types: map[reflect.Type]bool{}, tables: map[string]bool{}, named: map[string]bool{}}
	for i, model := range models {
		if name, ok := model.(string); ok {
			if name == "" {
				return nil, fmt.Errorf("Config.MainModels[%d] is an empty table name", i)
			}
			m.named[baseName(name)] = true
			m.tables[baseName(name)] = true
			continue
		}
		stmt := &gorm.Statement{DB: db}
		if err := stmt.Parse(model); err != nil {
			return nil, fmt.Errorf("Config.MainModels[%d] (%T) is not a model: %w", i, model, err)
		}
		m.types[stmt.Schema.ModelType] = true
		m.tables[baseName(stmt.Schema.Table)] = true
	}
	return m, nil
}

// lists reports whether the model of s is a main model.
func (m *mainModels) lists(s *schema.Schema) bool {
	return s != nil && (m.types[s.ModelType] || len(m.named) > 0 && m.named[baseName(s.Table)])
}

// owns reports whether the statement is on a main model: its model is listed
// and its real table has a listed name. One without the other is refused, as
// it could be meant either way; with no model the table decides. Raw SQL goes
// where its ctx leads.
func (m *mainModels) owns(stmt *gorm.Statement, v verb, sc scope.Scope) (bool, error) {
	if len(m.tables) == 0 || sc.Main {
		return false, nil
	}
	listed := m.lists(stmt.Schema)
	if stmt.SQL.Len() > 0 {
		if listed {
			return false, &Error{Op: string(v), Tenant: sc.ID, Err: ErrCrossDatabase,
				Detail: "raw SQL runs on the context's database, but its model " + stmt.Schema.Name + " is a main model",
				Hint:   "run it with tenant.Main(ctx)"}
		}
		return false, m.checkDDL(stmt, v, sc)
	}
	var main, other bool
	if stmt.TableExpr == nil {
		main = m.tables[baseName(stmt.Table)]
		other = !main
	} else {
		for _, name := range tablesIn(stmt.TableExpr) {
			if m.tables[name] {
				main = true
			} else {
				other = true
			}
		}
	}
	switch {
	case main && other:
		return false, &Error{Op: string(v), Tenant: sc.ID, Err: ErrCrossDatabase,
			Detail: "it names tables of both", Hint: "run one query for each database"}
	case stmt.Schema == nil || stmt.Schema.ModelType == nil:
		return main, nil
	case listed == main, !main && !other:
		return listed, nil
	case listed:
		return false, &Error{Op: string(v), Tenant: sc.ID, Err: ErrCrossDatabase,
			Detail: fmt.Sprintf("%s is a main model, but table %s is not listed", stmt.Schema.Name, stmt.Table),
			Hint:   "list the table's name in Config.MainModels too, or use tenant.Main(ctx)"}
	}
	return false, &Error{Op: string(v), Tenant: sc.ID, Err: ErrCrossDatabase,
		Detail: fmt.Sprintf("table %s is in the main database, but model %s is not listed", stmt.Table, stmt.Schema.Name),
		Hint:   "list the model in Config.MainModels, or use tenant.Main(ctx)"}
}

// checkDDL refuses to create, alter or drop a main model's table in a tenant's
// database. GORM's Migrator sends DDL as raw SQL without a model, and
// AutoMigrate of a tenant's model also creates the tables that it refers to
// (gorm migrator/migrator.go, ReorderModels).
func (m *mainModels) checkDDL(stmt *gorm.Statement, v verb, sc scope.Scope) error {
	if v != verbRaw {
		return nil
	}
	for _, table := range ddlTables(stmt.SQL.String()) {
		if m.tables[table] {
			return &Error{Op: string(v), Tenant: sc.ID, Err: ErrCrossDatabase,
				Detail: "table " + table + " belongs to the main database",
				Hint:   "migrate it with tenant.Main(ctx); where a tenant's model refers to it, tag that field `gorm:\"constraint:-\"`, since no foreign key crosses databases"}
		}
	}
	return nil
}

// savedAssociations is the setting in which GORM notes what it has saved along
// with an owner (gorm callbacks/associations.go, checkAssociationsSaved).
const savedAssociations = "gorm:saved_association_map"

// saveReference deals with the statement by which GORM saves a main model
// along with a tenant's row that refers to it ("INSERT INTO plans ... ON
// CONFLICT DO NOTHING"). If it has its primary key it is not saved: the
// statement becomes a dry run, and GORM goes on to set the owner's foreign key
// or join row. Otherwise it is refused. It reports false for any other
// statement.
func (m *mainModels) saveReference(db *gorm.DB, v verb) (done bool, err error) {
	stmt := db.Statement
	if v != verbCreate || !savedAsAssociation(stmt) {
		return false, nil
	}
	refuse := func(detail, hint string) (bool, error) {
		return false, &Error{Op: string(v), Tenant: scope.From(stmt.Context).ID, Err: ErrMainInTenantTx,
			Detail: detail, Hint: hint}
	}
	if c, _ := stmt.Clauses["ON CONFLICT"].Expression.(clause.OnConflict); !c.DoNothing {
		return refuse("saving a tenant's row would write rows of "+stmt.Table+" along with it",
			"Omit the association, and write them to the main database by themselves")
	}
	complete := true
	eachStruct(stmt.ReflectValue, func(row reflect.Value) {
		for _, pk := range stmt.Schema.PrimaryFields {
			if _, zero := pk.ValueOf(stmt.Context, row); zero {
				complete = false
			}
		}
	})
	if !complete || len(stmt.Schema.PrimaryFields) == 0 {
		return refuse("saving a tenant's row would create a row of "+stmt.Table+" along with it",
			"create that in the main database first, or Omit the association")
	}
	config := *db.Config
	config.DryRun = true
	config.Logger = logger.Discard // or it would log an INSERT that is not sent
	db.Config = &config
	stmt.SkipHooks = true
	return true, nil
}

// savedAsAssociation reports whether all rows of the statement are in GORM's
// notes: the setting alone proves nothing, it stays in a statement that is
// used again.
func savedAsAssociation(stmt *gorm.Statement) bool {
	noted, ok := stmt.Settings.Load(savedAssociations)
	if !ok || stmt.Schema == nil {
		return false
	}
	visited, ok := noted.(*map[reflect.Value]bool)
	if !ok {
		return false
	}
	all, any := true, false
	eachStruct(stmt.ReflectValue, func(row reflect.Value) {
		any = true
		if !row.CanAddr() || !(*visited)[row.Addr()] {
			all = false
		}
	})
	return any && all
}

// eachStruct calls fn for v if it is a struct, or for the structs that v, a
// slice or an array, holds or points to.
func eachStruct(v reflect.Value, fn func(reflect.Value)) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		fn(v)
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			e := v.Index(i)
			for e.Kind() == reflect.Pointer || e.Kind() == reflect.Interface {
				e = e.Elem()
			}
			if e.Kind() == reflect.Struct {
				fn(e)
			}
		}
	}
}

// baseName returns a table's name without schema and quotes, in lower case.
func baseName(name string) string {
	if plainName(name) { // nearly every statement's table
		return name
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return strings.ToLower(strings.Trim(name, "\"`[]' "))
}

// plainName reports whether name is its own base name: it saves
// the scans of the general way.
func plainName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_':
		default:
			return false
		}
	}
	return true
}
