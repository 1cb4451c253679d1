package tenancy

import (
	"sync"
	"time"
)

// manyServers is how many servers are remembered before those without a pool
// are forgotten.
const manyServers = 1024

// servers are the servers that tenants' databases are on, by name. They outlive
// the pools, so that opening a pool anew resets neither budget nor breaker.
type servers struct {
	limits  Limits
	observe func(Event)
	start   time.Time

	mu sync.Mutex
	m  map[string]*server
}

func newServers(limits Limits, observe func(Event)) *servers {
	return &servers{limits: limits, observe: observe, start: time.Now(), m: make(map[string]*server)}
}

// join returns the server called name, for one pool more. The pool leaves it
// when it is gone.
func (ss *servers) join(name string) *server {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s, ok := ss.m[name]
	if !ok {
		if len(ss.m) >= manyServers {
			ss.forgetLocked()
		}
		size := ss.limits.MaxConnsPerServer
		if n, ok := ss.limits.Servers[name]; ok {
			size = n
		}
		s = &server{
			name:    name,
			size:    size,
			acquire: ss.limits.AcquireTimeout,
			connect: ss.limits.ConnectTimeout,
			spare:   ss.limits.ConnMaxIdleTime,
			observe: ss.observe,
			start:   ss.start,
			callers: make(map[*dialer]struct{}),
		}
		ss.m[name] = s
	}
	s.mu.Lock()
	s.pools++
	s.mu.Unlock()
	return s
}

// forgetLocked forgets the servers that no pool is on, but those that are down.
func (ss *servers) forgetLocked() {
	for name, s := range ss.m {
		s.mu.Lock()
		unused := s.pools == 0 && !s.breaker.open
		s.mu.Unlock()
		if unused {
			delete(ss.m, name)
		}
	}
}

func (ss *servers) all() []*server {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	all := make([]*server, 0, len(ss.m))
	for _, s := range ss.m {
		all = append(all, s)
	}
	return all
}
