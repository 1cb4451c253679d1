package tenancy

import (
	"reflect"
	"sync"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// Stamp, embedded in a model, remembers which database a row came from. Keys
// repeat across databases: every tenant has a row 1, so saving one tenant's
// row in another overwrites a stranger's, with no error. A row that carries a
// Stamp is refused there, with [ErrWrongTenant].
//
//	type Order struct {
//		ID uint
//		tenancy.Stamp
//	}
//
// It is set when GORM loads a row into a model, also through Joins and
// Preload, and when GORM creates one. It is not set by Scan, Rows and
// ScanRows, and a copy of some fields loses it. It adds no column, no hook and
// no JSON; reflect.DeepEqual sees it.
type Stamp struct {
	tenant string
	main   bool
}

// Tenant returns the id of the tenant that the row came from; false when it
// came from the main database, or was not loaded by GORM.
func (s Stamp) Tenant() (id string, ok bool) { return s.tenant, s.tenant != "" }

func (s Stamp) of(t target) bool { return s == Stamp{} || s == Stamp{tenant: t.id, main: t.main} }

func (s Stamp) String() string {
	if s.main {
		return "the main database"
	}
	return "tenant " + quoteID(s.tenant)
}

// stampIndex remembers where a type keeps its Stamp: []int, nil for none.
var stampIndex sync.Map

// stampOf returns the index of the Stamp that t embeds, at any depth, for
// reflect.Value.FieldByIndex.
func stampOf(t reflect.Type) []int {
	if index, ok := stampIndex.Load(t); ok {
		return index.([]int)
	}
	var index []int
	stamp := reflect.TypeFor[Stamp]()
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous && (f.Type == stamp || f.Type == reflect.PointerTo(stamp)) {
			index = f.Index
			break
		}
	}
	stampIndex.Store(t, index)
	return index
}

// stampIn returns the row's Stamp. Where a pointer on the way to it is nil it
// is made, if make says so and it can be set; false if there is none.
func stampIn(row reflect.Value, index []int, make bool) (stamp reflect.Value, ok bool) {
	at := row
	for _, i := range index {
		if at, ok = pointed(at, make); !ok {
			return at, false
		}
		at = at.Field(i)
	}
	return pointed(at, make)
}

func pointed(v reflect.Value, make bool) (reflect.Value, bool) {
	if v.Kind() != reflect.Pointer {
		return v, true
	}
	if v.IsNil() {
		if !make || !v.CanSet() {
			return v, false
		}
		v.Set(reflect.New(v.Type().Elem()))
	}
	return v.Elem(), true
}

// structType returns the struct that t is, or that its elements are.
func structType(t reflect.Type) (reflect.Type, bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct
}

// checkStamps refuses a write of rows that came from another database.
func checkStamps(stmt *gorm.Statement, v verb, t target) error {
	err := checkStamp(stmt.ReflectValue, v, t)
	if err == nil && v != verbCreate && stmt.Model != nil { // Updates and Delete take the key from it
		err = checkStamp(reflect.ValueOf(stmt.Model), v, t)
	}
	return err
}

func checkStamp(rows reflect.Value, v verb, t target) (err error) {
	if !rows.IsValid() {
		return nil
	}
	typ, ok := structType(rows.Type())
	if !ok {
		return nil
	}
	index := stampOf(typ)
	if index == nil {
		return nil
	}
	eachStruct(rows, func(row reflect.Value) {
		field, ok := stampIn(row, index, false)
		if !ok || err != nil || !field.CanInterface() {
			return
		}
		if s := field.Interface().(Stamp); !s.of(t) {
			err = &Error{Op: string(v), Tenant: t.id, Err: ErrWrongTenant,
				Detail: "the row was loaded from " + s.String() + " and would be written to " + t.String(),
				Hint:   "load it from the database that you write to, or make a new value"}
		}
	})
	return err
}

// stamp is the callback that marks what was loaded or created.
func (p *Plugin) stamp(db *gorm.DB) {
	stmt := db.Statement
	if db.Error != nil || db.DryRun || !stmt.ReflectValue.IsValid() {
		return
	}
	typ, ok := structType(stmt.ReflectValue.Type())
	if !ok {
		return
	}
	index := stampOf(typ)
	joined := len(stmt.Joins) > 0 && stmt.Schema != nil && typ == stmt.Schema.ModelType
	if index == nil && !joined {
		return
	}
	mark := Stamp{main: true}
	if id, ok := p.tenantAt(stmt); ok {
		mark = Stamp{tenant: id}
	}
	eachStruct(stmt.ReflectValue, func(row reflect.Value) {
		if index != nil {
			setStamp(row, index, mark)
		}
		if !joined {
			return
		}
		for _, j := range stmt.Joins {
			at := row
			for _, rel := range relations(stmt.Schema, j.Name) {
				at = reflect.Indirect(rel.Field.ReflectValueOf(stmt.Context, at))
				if at.Kind() != reflect.Struct {
					break
				}
				if index := stampOf(at.Type()); index != nil {
					setStamp(at, index, mark)
				}
			}
		}
	})
}

func setStamp(row reflect.Value, index []int, mark Stamp) {
	field, ok := stampIn(row, index, true)
	if !ok || !field.CanAddr() || !field.Addr().CanInterface() {
		return
	}
	*field.Addr().Interface().(*Stamp) = mark
}

// tenantAt returns the tenant that a statement ran on; false for main.
func (p *Plugin) tenantAt(stmt *gorm.Statement) (string, bool) {
	pool := stmt.ConnPool
	if rd, ok := pool.(*reader); ok {
		pool = rd.prev()
	}
	switch pool := pool.(type) {
	case *detour, *txDetour:
		return "", false
	case *Tx:
		return pool.id, !pool.main
	case *bound:
		if scope.From(stmt.Context).Main {
			return "", false
		}
		return pool.id, true
	case *held:
		return pool.id, true
	default:
		return scope.From(stmt.Context).Tenant()
	}
}
