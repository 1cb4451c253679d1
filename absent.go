package tenancy

import (
	"math/rand/v2"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// absentTime is how long at most a failure to open a tenant answers for
	// the next callers; at least half of it.
	absentTime = time.Second
	// manyAbsent bounds how many are remembered: ids come from outside.
	manyAbsent = 4096
)

// absentees remembers for a moment the tenants that could not be opened, so
// that a flood of requests for one that is unknown, or while the resolver is
// down, asks the resolver once a second. Guarded by cache.mu.
type absentees struct {
	lru *simplelru.LRU[string, absentee]
}

type absentee struct {
	err   error
	until time.Duration
}

func newAbsentees() *absentees {
	lru, err := simplelru.NewLRU[string, absentee](manyAbsent, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &absentees{lru}
}

func (a *absentees) add(id string, err error, now time.Duration) {
	a.lru.Add(id, absentee{err, now + absentTime/2 + rand.N(absentTime/2)})
}

func (a *absentees) find(id string, now time.Duration) error {
	if a.lru.Len() == 0 {
		return nil
	}
	found, ok := a.lru.Peek(id)
	if !ok {
		return nil
	}
	if now >= found.until {
		a.lru.Remove(id)
		return nil
	}
	return found.err
}

func (a *absentees) remove(id string) { a.lru.Remove(id) }
func (a *absentees) clear()           { a.lru.Purge() }
