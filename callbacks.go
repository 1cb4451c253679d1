package tenancy

import (
	"errors"
	"fmt"
	"reflect"

	"gorm.io/gorm"
)

// verb is one of GORM's six processors.
type verb string

const (
	verbCreate verb = "create"
	verbQuery  verb = "query"
	verbUpdate verb = "update"
	verbDelete verb = "delete"
	verbRow    verb = "row"
	verbRaw    verb = "raw"
)

func (v verb) writes() bool { return v == verbCreate || v == verbUpdate || v == verbDelete }

// The names of our callbacks.
const (
	cbRoute   = "tenancy:route"
	cbBegun   = "tenancy:begun"
	cbEnd     = "tenancy:end"
	cbCheck   = "tenancy:check"
	cbStamp   = "tenancy:stamp"
	cbRestore = "tenancy:restore"
)

// hook places one callback directly before one of GORM's own, or after it.
type hook struct {
	name          string
	before, after string
	fn            func(*gorm.DB)
}

// hooks lists our callbacks of one processor, in the order of GORM's (gorm
// callbacks/callbacks.go, RegisterDefaultCallbacks). begin says whether that
// has default transactions: without, gorm:begin_transaction does not exist
// (gorm callbacks.go, compile drops it).
//
// route comes directly before GORM's own first work, registered by name: a
// callback that is Before("*") is not the last word, because of two such
// callbacks the one registered later runs first, so dbresolver's, used first,
// would overwrite our choice.
//
// begun comes directly after gorm has begun its default transaction, and
// remembers it for check, and for end, which comes before gorm ends it.
//
// check comes directly before the statement is built and run, because hooks
// and other plugins run between the two.
func (p *Plugin) hooks(v verb, begin bool) []hook {
	const (
		beginTx   = "gorm:begin_transaction"
		saveAfter = "gorm:save_after_associations"
	)
	first := map[verb]string{
		verbCreate: "gorm:before_create",
		verbUpdate: "gorm:setup_reflect_value",
		verbDelete: "gorm:before_delete",
	}[v]
	var hooks []hook
	if v.writes() {
		if begin {
			hooks = []hook{
				{name: cbBegun, before: first, fn: p.begun},
				{name: cbEnd, before: "gorm:commit_or_rollback_transaction", fn: p.end(v)},
			}
			first = beginTx
		} else {
			hooks = []hook{{name: cbEnd, after: "gorm:after_" + string(v), fn: p.end(v)}}
		}
	}
	switch v {
	case verbCreate:
		return append(hooks, []hook{
			{name: cbRoute, before: first, fn: p.route(v)},
			{name: cbCheck, before: "gorm:create", fn: p.check(v)},
			{name: cbStamp, before: saveAfter, fn: p.stamp},
			{name: cbRestore, after: "gorm:after_create", fn: p.restore(v)},
		}...)
	case verbQuery:
		return []hook{
			{name: cbRoute, before: "gorm:query", fn: p.route(v)},
			{name: cbStamp, before: "gorm:preload", fn: p.stamp},
			{name: cbRestore, after: "gorm:after_query", fn: p.restore(v)},
		}
	case verbUpdate:
		return append(hooks, []hook{
			{name: cbRoute, before: first, fn: p.route(v)},
			{name: cbCheck, before: "gorm:update", fn: p.check(v)},
			{name: cbRestore, after: "gorm:after_update", fn: p.restore(v)},
		}...)
	case verbDelete:
		return append(hooks, []hook{
			{name: cbRoute, before: first, fn: p.route(v)},
			{name: cbCheck, before: "gorm:delete", fn: p.check(v)},
			{name: cbRestore, after: "gorm:after_delete", fn: p.restore(v)},
		}...)
	default: // row, raw
		return []hook{
			{name: cbRoute, before: "gorm:" + string(v), fn: p.route(v)},
			{name: cbRestore, after: "gorm:" + string(v), fn: p.restore(v)},
		}
	}
}

var verbs = []verb{verbCreate, verbQuery, verbUpdate, verbDelete, verbRow, verbRaw}

// processors returns what db.Callback() has for each of verbs. gorm does not
// export their type, so it is only ever inferred.
func processors[P any](create, query, update, del, row, raw P) []P {
	return []P{create, query, update, del, row, raw}
}

// register registers the callbacks of all six processors.
func (p *Plugin) register(db *gorm.DB) error {
	cb := db.Callback()
	procs := processors(cb.Create(), cb.Query(), cb.Update(), cb.Delete(), cb.Row(), cb.Raw())
	for i, proc := range procs {
		begin := proc.Get("gorm:begin_transaction") != nil
		for _, h := range p.hooks(verbs[i], begin) {
			at := proc.Before(h.before)
			if h.after != "" {
				at = proc.After(h.after)
			}
			if err := at.Register(h.name, h.fn); err != nil {
				return fmt.Errorf("tenancy: registering %s of %s: %w", h.name, verbs[i], err)
			}
		}
	}
	return verify(db)
}

// Verify reports whether db is guarded: all callbacks stand in all six
// processors, before the work that they guard and after dbresolver's. Call it
// when the application has started, and in tests: another plugin can remove
// callbacks, and one that registers conflicting ones leaves a processor
// without any (gorm callbacks.go, compile), after which its verbs do nothing
// and report no error.
func Verify(db *gorm.DB) error {
	p, ok := From(db)
	if !ok {
		return errNotUsed("verify")
	}
	if plainPool(db.Config.ConnPool) != gorm.ConnPool(p.router) {
		if b, ok := plainPool(db.Config.ConnPool).(*bound); !ok || b.router != p.router {
			return fmt.Errorf("tenancy: db.ConnPool is %T and not the plugin's router; set no ConnPool after db.Use, and call Verify on the db that Use was called on", db.Config.ConnPool)
		}
	}
	return verify(db)
}

func verify(db *gorm.DB) error {
	cb := db.Callback()
	procs := processors(cb.Create(), cb.Query(), cb.Update(), cb.Delete(), cb.Row(), cb.Raw())
	for i, proc := range procs {
		// The compiled order is not exported: processor.fns (gorm callbacks.go).
		fns := reflect.ValueOf(proc).Elem().FieldByName("fns")
		if !fns.IsValid() || fns.Kind() != reflect.Slice {
			return errors.New("tenancy: this version of gorm keeps its callbacks in a way that tenancy does not know; use a supported version")
		}
		order := make(map[uintptr]int, fns.Len())
		for j := range fns.Len() {
			order[fns.Index(j).Pointer()] = j + 1
		}
		at := func(name string) int {
			fn := proc.Get(name)
			if fn == nil {
				return 0
			}
			return order[reflect.ValueOf(fn).Pointer()]
		}
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("tenancy: gorm's %s callbacks: %s; look for a plugin that registers, removes or replaces callbacks",
				verbs[i], fmt.Sprintf(format, args...))
		}
		for _, h := range (&Plugin{}).hooks(verbs[i], at("gorm:begin_transaction") > 0) {
			ours, theirs := at(h.name), at(h.before+h.after)
			switch {
			case ours == 0:
				return wrong("%s is missing", h.name)
			case theirs == 0:
				return wrong("%s is missing", h.before+h.after)
			case h.before != "" && ours > theirs, h.after != "" && ours < theirs:
				return wrong("%s and %s are in the wrong order", h.name, h.before+h.after)
			}
		}
		if dbresolver := at("gorm:db_resolver"); dbresolver > at(cbRoute) {
			return wrong("%s must run after dbresolver's", cbRoute)
		}
	}
	return nil
}

func errNotUsed(op string) error {
	return &Error{Op: op, Err: ErrUnavailable, Detail: "the db does not use the plugin", Hint: "call db.Use(tenancy.New(cfg)) first"}
}
