package tenancy

import (
	"database/sql"
	"reflect"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// proveRaw reports whether a *sql.Conn or *sql.Tx that our router did not make
// belongs to the database that the statement means.
func (p *Plugin) proveRaw(db *gorm.DB, v verb, raw *sql.DB) error {
	sc := scope.From(db.Statement.Context)
	mainModel, err := p.models.owns(db.Statement, v, sc)
	if err != nil {
		return err
	}
	if sc.Main || mainModel {
		if raw != nil && (raw == p.mainDB || p.isMainPool(raw)) {
			return nil
		}
	} else {
		id, err := tenantOf(p.base(db), sc, v)
		if err != nil {
			return err
		}
		owner, ok := p.cache.owner(func(tp tenantPool) bool { return tp.(*pool).db == raw })
		if raw != nil && ok && owner == id {
			return nil
		}
	}
	return &Error{Op: string(v), Tenant: sc.ID, Err: ErrTenantMismatch,
		Detail: "the statement holds a connection or transaction that is not proved to be of the database it means",
		Hint:   "use tenancy.Conn instead of Connection, derive sessions after db.Use, and begin transactions on a db with the tenant's context and without dbresolver's clauses"}
}

func (p *Plugin) unproved(db *gorm.DB, v verb, pool gorm.ConnPool) error {
	return &Error{Op: string(v), Tenant: scope.From(db.Statement.Context).ID, Err: ErrTenantMismatch,
		Detail: "the statement holds a pool of type " + typeName(pool) + ", whose database is not known",
		Hint:   "let no other plugin or hook set the statement's ConnPool"}
}

func typeName(v any) string {
	if v == nil {
		return "nil"
	}
	return reflect.TypeOf(v).String()
}

// rawOwner returns the sql.DB that a *sql.Tx or *sql.Conn came from, as
// gorm's own DB does for a Tx (gorm gorm.go, DB): neither type tells.
func rawOwner(pool gorm.ConnPool) (*sql.DB, bool) {
	var v reflect.Value
	switch pool := pool.(type) {
	case *sql.Tx:
		v = reflect.ValueOf(pool)
	case *sql.Conn:
		v = reflect.ValueOf(pool)
	default:
		return nil, false
	}
	if v.IsNil() {
		return nil, true
	}
	field := v.Elem().FieldByName("db")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*sql.DB]() {
		return nil, true // owned by nobody we know
	}
	return (*sql.DB)(field.UnsafePointer()), true
}
