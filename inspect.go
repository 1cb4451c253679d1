package tenancy

import (
	"database/sql"
	"reflect"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/schema"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// inspect refuses a statement that leads to t but brings something of another
// database with it: a stamped row, a join, a sub-query, a preload.
func (p *Plugin) inspect(db *gorm.DB, v verb, t target) error {
	stmt := db.Statement
	if v.writes() {
		if err := checkClone(db, v); err != nil {
			return err
		}
		if err := checkStamps(stmt, v, t); err != nil {
			return err
		}
	}
	in := inspector{p: p, v: v, t: t, stmt: stmt}
	if len(stmt.Joins) > 0 {
		if err := in.joins(stmt, stmt.Schema); err != nil {
			return err
		}
	}
	if stmt.TableExpr != nil {
		if err := in.values(stmt.TableExpr.Vars); err != nil {
			return err
		}
	}
	if err := in.clauses(stmt.Clauses); err != nil {
		return err
	}
	if v == verbCreate || v == verbUpdate {
		if err := in.dest(stmt.Dest); err != nil {
			return err
		}
	}
	if v == verbQuery && len(stmt.Preloads) > 0 {
		watchPreloads(stmt)
	}
	return nil
}

// cloneField is gorm.DB's unexported field clone.
var cloneField = func() int {
	f, ok := reflect.TypeFor[gorm.DB]().FieldByName("clone")
	if !ok || f.Type.Kind() != reflect.Int {
		return -1
	}
	return f.Index[0]
}()

// checkClone refuses a write whose scope returned a session (WithContext,
// Session, Debug): GORM notes the default transaction in a clone of the
// statement and so never ends it (gorm callbacks/transaction.go and gorm.go,
// InstanceSet): no error, no row, and a connection that never comes back.
func checkClone(db *gorm.DB, v verb) error {
	if cloneField < 0 || db.SkipDefaultTransaction || reflect.ValueOf(db).Elem().Field(cloneField).Int() == 0 {
		return nil
	}
	if _, ok := db.Statement.ConnPool.(gorm.TxCommitter); ok {
		return nil // no default transaction begins
	}
	return &Error{Op: string(v), Tenant: scope.From(db.Statement.Context).ID, Err: ErrTenantMismatch,
		Detail: "a scope returned a new session, and GORM would never commit its write",
		Hint:   "in a scope, change db.Statement and return the same db; for a tenant use tenancy.WithTenant"}
}

// inspector looks through what a statement is made of for sessions of other
// databases.
type inspector struct {
	p     *Plugin
	v     verb
	t     target
	stmt  *gorm.Statement
	depth int
}

// onMain reports whether the context means the main database: then no model
// and no table is a tenant's.
func (in *inspector) onMain() bool { return scope.From(in.stmt.Context).Main }

func (in *inspector) cross(what string) error {
	return &Error{Op: string(in.v), Tenant: in.t.id, Err: ErrCrossDatabase,
		Detail: what, Hint: "run one query for each database and combine them in Go, or use Preload"}
}

// dest checks the values of a map that is written; a struct's are no sessions.
func (in *inspector) dest(dest any) error {
	switch m := dest.(type) {
	case map[string]any:
		return in.value(m)
	case *map[string]any:
		if m != nil {
			return in.value(*m)
		}
	}
	return nil
}

// joins checks the models and tables that stmt joins: the statement itself, or
// a sub-query of it, whose model is s.
func (in *inspector) joins(stmt *gorm.Statement, s *schema.Schema) error {
	m := in.p.models
	for _, j := range stmt.Joins {
		if err := in.values(j.Conds); err != nil {
			return err
		}
		if err := in.value(j.Expression); err != nil {
			return err
		}
		if j.On != nil {
			if err := in.value(*j.On); err != nil {
				return err
			}
		}
		if len(m.tables) == 0 || in.onMain() {
			continue
		}
		path := relations(s, j.Name)
		for _, rel := range path {
			if m.lists(rel.FieldSchema) != in.t.main {
				return in.cross("it joins " + j.Name + ", which is in the other database")
			}
		}
		if path == nil && !in.t.main {
			for _, table := range joinedTables(j.Name) {
				if m.tables[table] {
					return in.cross("it joins table " + table + ", which is in the main database")
				}
			}
		}
	}
	return nil
}

// relations returns the relations that the name of a join leads through, as
// gorm callbacks/query.go, BuildQuerySQL, reads it; nil if it is raw SQL.
func relations(s *schema.Schema, name string) (path []*schema.Relationship) {
	for _, part := range strings.Split(name, ".") {
		if s == nil {
			return nil
		}
		rel, ok := s.Relationships.Relations[part]
		if !ok {
			return nil
		}
		path = append(path, rel)
		s = rel.FieldSchema
	}
	return path
}

func (in *inspector) values(vs []any) error {
	for _, v := range vs {
		if err := in.value(v); err != nil {
			return err
		}
	}
	return nil
}

func (in *inspector) exprs(es []clause.Expression) error {
	for _, e := range es {
		if err := in.value(e); err != nil {
			return err
		}
	}
	return nil
}

// usualClauses are what nearly every statement has no others than, most usual
// first: looking for them costs half of what ranging over the map does.
var usualClauses = [...]string{"WHERE", "LIMIT", "ORDER BY", "SELECT", "SET"}

func (in *inspector) clauses(all map[string]clause.Clause) error {
	left := len(all)
	for _, name := range usualClauses {
		if left == 0 {
			return nil
		}
		if c, ok := all[name]; ok {
			left--
			if err := in.value(c.Expression); err != nil {
				return err
			}
		}
	}
	if left == 0 {
		return nil
	}
	for _, c := range all {
		if err := in.value(c.Expression); err != nil {
			return err
		}
	}
	return nil
}

// value looks for sub-queries in what GORM's conditions are made of. A
// sub-query in another type stays unseen; it then runs as part of the
// statement, on the statement's own database.
func (in *inspector) value(v any) error {
	switch v := v.(type) {
	case nil, string, int, uint, int64, uint64, bool:
		return nil
	case *gorm.DB:
		return in.subquery(v)
	case []any:
		return in.values(v)
	case sql.NamedArg:
		return in.value(v.Value)
	case map[string]any:
		for _, x := range v {
			if err := in.value(x); err != nil {
				return err
			}
		}
	case clause.Where:
		return in.exprs(v.Exprs)
	case clause.AndConditions:
		return in.exprs(v.Exprs)
	case clause.OrConditions:
		return in.exprs(v.Exprs)
	case clause.NotConditions:
		return in.exprs(v.Exprs)
	case clause.Expr:
		return in.values(v.Vars)
	case clause.NamedExpr:
		for _, arg := range v.Vars {
			if err := in.named(arg); err != nil {
				return err
			}
		}
	case clause.IN:
		return in.values(v.Values)
	case clause.Eq:
		return in.value(v.Value)
	case clause.Neq:
		return in.value(v.Value)
	case clause.Gt:
		return in.value(v.Value)
	case clause.Gte:
		return in.value(v.Value)
	case clause.Lt:
		return in.value(v.Value)
	case clause.Lte:
		return in.value(v.Value)
	case clause.Select:
		return in.value(v.Expression)
	case clause.From:
		for _, t := range v.Tables {
			if err := in.table(t); err != nil {
				return err
			}
		}
		for _, j := range v.Joins {
			if err := in.table(j.Table); err != nil {
				return err
			}
			if err := in.exprs(j.ON.Exprs); err != nil {
				return err
			}
			if err := in.value(j.Expression); err != nil {
				return err
			}
		}
	case clause.GroupBy:
		return in.exprs(v.Having)
	case clause.Set:
		for _, a := range v {
			if err := in.value(a.Value); err != nil {
				return err
			}
		}
	case clause.OrderBy:
		return in.value(v.Expression)
	case clause.OnConflict:
		if err := in.value(v.DoUpdates); err != nil {
			return err
		}
		return in.value(v.Where)
	}
	return nil
}

// table checks a table that a FROM clause names.
func (in *inspector) table(t clause.Table) error {
	if in.t.main || t.Name == "" || !in.p.models.tables[baseName(t.Name)] {
		return nil
	}
	return in.cross("it reads table " + t.Name + ", which is in the main database")
}

// named checks an argument of a condition with @names: a value that
// value knows, or a struct whose fields are the arguments (gorm
// clause/expression.go, NamedExpr.Build).
func (in *inspector) named(arg any) error {
	rv := reflect.ValueOf(arg)
	for rv.Kind() == reflect.Pointer && rv.Type() != reflect.TypeFor[*gorm.DB]() {
		rv = rv.Elem()
	}
	if rv.Kind() != reflect.Struct || rv.Type() == reflect.TypeFor[sql.NamedArg]() {
		return in.value(arg)
	}
	for i := range rv.NumField() {
		f := rv.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		check := in.value
		if f.Anonymous {
			check = in.named
		}
		if err := check(rv.Field(i).Interface()); err != nil {
			return err
		}
	}
	return nil
}

// subquery checks a *gorm.DB used as a value. GORM builds it in a dry run,
// drops its error and goes on with "()" (gorm statement.go, AddVar): in NOT IN
// that is true for every row.
func (in *inspector) subquery(sub *gorm.DB) error {
	if sub == nil || sub.Statement == nil || in.depth > 8 {
		return nil
	}
	if sub.Error != nil {
		return sub.Error
	}
	sc := scope.From(sub.Statement.Context)
	id, named := sc.Tenant()
	switch {
	case sc.Conflicted:
		return checkScope(sc, string(in.v))
	case named && !in.t.main && id != in.t.id:
		return &Error{Op: string(in.v), Tenant: in.t.id, Err: ErrTenantMismatch,
			Detail: "it has a sub-query of tenant " + quoteID(id),
			Hint:   "build the sub-query on a db of the same tenant"}
	}
	if sc.Main && !sc.Conflicted && !in.t.main {
		return in.cross("it has a sub-query on the main database")
	}
	probe := &gorm.Statement{DB: sub, Table: sub.Statement.Table, TableExpr: sub.Statement.TableExpr}
	for _, model := range []any{sub.Statement.Model, sub.Statement.Dest} {
		if model != nil && probe.Schema == nil {
			_ = probe.Parse(model) // no model: the table decides
		}
	}
	if m := in.p.models; probe.Table != "" && sub.Statement.SQL.Len() == 0 && (len(m.tables) > 0 || named && in.onMain()) {
		main, err := m.owns(probe, in.v, scope.Scope{})
		if err != nil {
			return err
		}
		switch {
		case in.onMain() && (main || !named): // the context has said where it runs
		case in.onMain():
			return in.cross("it has a sub-query of tenant " + quoteID(id) + ", and runs on the main database")
		case main != in.t.main:
			return in.cross("it has a sub-query on table " + probe.Table + ", which is in the other database")
		}
	}
	inner := *in
	inner.depth++
	if probe.TableExpr != nil {
		if err := inner.values(probe.TableExpr.Vars); err != nil {
			return err
		}
	}
	if err := inner.joins(sub.Statement, probe.Schema); err != nil {
		return err
	}
	return inner.clauses(sub.Statement.Clauses)
}
