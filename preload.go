package tenancy

import (
	"reflect"

	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/internal/scope"
)

// watchPreloads makes the functions in the statement's preloads fail when they
// return a session of another tenant: its rows would be attached to this
// one's. GORM runs them later (gorm callbacks/preload.go, preload). The map is
// the statement's own (gorm statement.go, clone), the slices are shared.
func watchPreloads(stmt *gorm.Statement) {
	for name, conds := range stmt.Preloads {
		copied := false
		for i, cond := range conds {
			fn, ok := cond.(func(*gorm.DB) *gorm.DB)
			if !ok || reflect.ValueOf(fn).Pointer() == watchedPreload {
				continue
			}
			if !copied {
				conds, copied = append([]any(nil), conds...), true
			}
			conds[i] = watchPreload(fn)
		}
		if copied {
			stmt.Preloads[name] = conds
		}
	}
}

// watchedPreload is the code of what watchPreload returns, to know it by.
var watchedPreload = reflect.ValueOf(watchPreload(nil)).Pointer()

func watchPreload(fn func(*gorm.DB) *gorm.DB) func(*gorm.DB) *gorm.DB {
	return func(tx *gorm.DB) *gorm.DB {
		want := scope.From(tx.Statement.Context)
		out := fn(tx)
		if out == nil || out.Statement == nil {
			return out
		}
		if got := scope.From(out.Statement.Context); got != want {
			out = out.Session(&gorm.Session{})
			_ = out.AddError(&Error{Op: "preload", Tenant: want.ID, Err: ErrTenantMismatch,
				Detail: "the preload's function returned a session with another context",
				Hint:   "return the db that the function was given"})
		}
		return out
	}
}
