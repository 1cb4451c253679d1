package tenancy

import (
	"reflect"

	"gorm.io/gorm"
	"gorm.io/plugin/dbresolver"
)

// isMainPool reports whether pool is the main database's own, or one of those
// that dbresolver keeps for it.
func (p *Plugin) isMainPool(pool gorm.ConnPool) bool {
	if t := reflect.TypeOf(pool); t == nil || !t.Comparable() {
		return false
	}
	if pool == p.main {
		return true
	}
	if known := p.mainPools.Load(); known != nil {
		if _, ok := (*known)[pool]; ok {
			return true
		}
	}
	// Not known: look again, dbresolver may have come or grown since.
	known := map[gorm.ConnPool]struct{}{}
	if dr, ok := p.db.Plugins[(&dbresolver.DBResolver{}).Name()].(*dbresolver.DBResolver); ok {
		_ = dr.Call(func(pool gorm.ConnPool) error {
			if t := reflect.TypeOf(pool); t != nil && t.Comparable() && pool != gorm.ConnPool(p.router) {
				known[pool] = struct{}{}
			}
			return nil
		})
	}
	p.mainPools.Store(&known)
	_, ok := known[pool]
	return ok
}

// openedByResolver reports whether db is one that dbresolver is opening, with
// a copy of the gorm.Config of the db that it serves: a replica or a source
// (dbresolver dbresolver.go, convertToConnPool). gorm.Open then initializes
// there all that the Config lists as Plugins, p too.
func (p *Plugin) openedByResolver(db *gorm.DB) bool {
	dr, ok := db.Plugins[(&dbresolver.DBResolver{}).Name()].(*dbresolver.DBResolver)
	if !ok || dr.DB == nil || dr.DB.Config == db.Config ||
		reflect.ValueOf(dr.DB.Plugins).Pointer() != reflect.ValueOf(db.Plugins).Pointer() {
		return false
	}
	for _, listed := range db.Plugins { // not yet there when it is db.Use that initializes
		if listed == gorm.Plugin(p) {
			return true
		}
	}
	return false
}
