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

// isReplica reports whether db is one that dbresolver opens for a replica, with
// a copy of the Config that lists both plugins. If gorm.Open initializes
// dbresolver first (Config.Plugins is a map), that db comes before the one that
// p is for.
func (p *Plugin) isReplica(db *gorm.DB) bool {
	if db.Plugins[pluginName] != gorm.Plugin(p) { // not by Config.Plugins
		return false
	}
	dr, ok := db.Plugins[(&dbresolver.DBResolver{}).Name()].(*dbresolver.DBResolver)
	return ok && dr.DB != nil && dr.DB.Callback() != db.Callback()
}
