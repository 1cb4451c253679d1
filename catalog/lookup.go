package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Resolve says where the tenant's database is, if it is active. It implements
// tenancy.Resolver. Provisioning, deleting and deleted tenants are not found;
// suspended and moving ones are tenancy.ErrTenantSuspended.
//
// The answer may be remembered: while [Catalog.Watch] runs, as it does for a
// plugin's Resolver, until news of the tenant comes; otherwise for Config.Poll.
// An answer that is out of date does no harm: the database itself refuses
// connections of an old generation, see tenancy.Identity.
func (c *Catalog) Resolve(ctx context.Context, id string) (tenancy.Database, error) {
	p, err := c.place(ctx, id)
	if err != nil {
		return tenancy.Database{}, err
	}
	switch p.state {
	case Active:
	case Suspended, Moving:
		if p.reason != "" {
			return tenancy.Database{}, fmt.Errorf("%w: %s", tenancy.ErrTenantSuspended, p.reason)
		}
		return tenancy.Database{}, fmt.Errorf("%w: it is %s", tenancy.ErrTenantSuspended, p.state)
	default:
		return tenancy.Database{}, tenancy.ErrTenantNotFound
	}
	s, err := c.server(p.server)
	if err != nil {
		return tenancy.Database{}, err
	}
	d, err := s.Database(p.database)
	if err != nil {
		return tenancy.Database{}, err
	}
	d.Server = p.server
	d.MaxConns = p.maxConns
	d.Schema = p.version
	d.Identity = tenancy.Identity{UID: p.uid, Generation: p.generation}
	// After a migration nobody must use the plans that connections remember.
	d.Version = fmt.Sprintf("%s/%d/%s", d.Identity, p.version, p.fingerprint)
	return d, nil
}

func notFound(op, id string) error {
	return &tenancy.Error{Op: op, Tenant: id, Err: tenancy.ErrTenantNotFound}
}

// place is what Resolve must know of a row, and what a change of is news.
type place struct {
	uid, server, database string
	state                 State
	generation            int64
	maxConns              int
	reason                string
	version               int64
	fingerprint           string
}

var nowhere = place{}

func (t Tenant) place() place {
	return place{t.UID, t.Server, t.Database, t.State, t.Generation, t.MaxConns, t.Reason, t.Version, t.Fingerprint}
}

// place returns where the tenant is, nowhere as not found.
func (c *Catalog) place(ctx context.Context, id string) (place, error) {
	if err := tenant.Validate(id); err != nil {
		return nowhere, &tenancy.Error{Op: "resolve", Err: err, Tenant: id}
	}
	p, epoch, ok := c.lookups.get(id)
	if !ok {
		t, err := c.store.byID(ctx, id)
		switch {
		case errors.Is(err, errNoRow):
			p = nowhere
		case err != nil:
			return nowhere, c.mainError("resolve", err)
		default:
			p = t.place()
		}
		c.lookups.put(id, p, epoch)
	}
	if p == nowhere {
		return nowhere, tenancy.ErrTenantNotFound
	}
	return p, nil
}

var started = time.Now()

// monotonic is a clock that nobody can set. The wall clocks of two processes
// may differ, and nothing here asks them.
func monotonic() time.Duration { return time.Since(started) }

// lookups remembers answers of the main database. Ids that are not there come
// from outside in any number, so they have a table of their own, and push
// nobody out.
type lookups struct {
	poll time.Duration

	mu      sync.Mutex // guards the rest
	known   *simplelru.LRU[string, lookup]
	unknown *simplelru.LRU[string, lookup]
	epoch   uint64        // of the news: an answer asked for before them is not kept
	current time.Duration // until when what is known is kept up to date by a watch
	heard   map[*func(string)]struct{}
	hits    atomic.Uint64
}

type lookup struct {
	place
	until time.Duration
	// doubt: something changed while it was asked for. It answers nobody, but
	// is compared, since somebody uses it.
	doubt bool
}

func newLookups(size int, poll time.Duration) *lookups {
	const manyUnknown = 4096
	known, err1 := simplelru.NewLRU[string, lookup](size, nil)
	unknown, err2 := simplelru.NewLRU[string, lookup](manyUnknown, nil)
	if err := errors.Join(err1, err2); err != nil {
		panic(err) // only for a size below 1
	}
	return &lookups{poll: poll, known: known, unknown: unknown, heard: map[*func(string)]struct{}{}}
}

func (l *lookups) get(id string) (p place, epoch uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := monotonic()
	if e, ok := l.known.Get(id); ok && !e.doubt && (now < e.until || now < l.current) {
		l.hits.Add(1)
		return e.place, l.epoch, true
	}
	if e, ok := l.unknown.Get(id); ok && now < e.until {
		return nowhere, l.epoch, true
	}
	return nowhere, l.epoch, false
}

func (l *lookups) put(id string, p place, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	doubt := epoch != l.epoch // something changed meanwhile, maybe this
	e := lookup{p, monotonic() + l.poll, doubt}
	if p == nowhere {
		if doubt {
			return
		}
		l.known.Remove(id)
		l.unknown.Add(id, e)
		return
	}
	l.unknown.Remove(id)
	l.known.Add(id, e)
}

// news forgets the ids, and tells who watches. Without any it only says that
// answers that are under way may be old.
func (l *lookups) news(ids ...string) {
	l.mu.Lock()
	l.epoch++
	for _, id := range ids {
		l.known.Remove(id)
		l.unknown.Remove(id)
	}
	heard := make([]func(string), 0, len(l.heard))
	for fn := range l.heard {
		heard = append(heard, *fn)
	}
	l.mu.Unlock()
	for _, fn := range heard {
		for _, id := range ids {
			fn(id)
		}
	}
}

// snapshot returns all that is known, to be compared with the database.
func (l *lookups) snapshot() (known map[string]place, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]place, l.known.Len())
	for _, id := range l.known.Keys() {
		if e, ok := l.known.Peek(id); ok {
			all[id] = e.place
		}
	}
	return all, l.epoch
}

// keep says that what is known is up to date until then.
func (l *lookups) keep(until time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = until
}

// same says that what was known of id in that epoch was so when it was
// compared.
func (l *lookups) same(id string, p place, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		return
	}
	if e, ok := l.known.Peek(id); ok && e.doubt && e.place == p {
		e.doubt, e.until = false, 0
		l.known.Add(id, e)
	}
}

// Forget makes the next Resolve of id ask the main database. It implements
// tenancy.Forgetter: a plugin calls it when a database says that it is not the
// tenant's.
func (c *Catalog) Forget(id string) {
	l := c.lookups
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	if e, ok := l.known.Peek(id); ok {
		e.doubt = true
		l.known.Add(id, e)
	}
	l.unknown.Remove(id)
}

func (l *lookups) listen(fn func(string)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard[&fn] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.heard, &fn)
		if len(l.heard) == 0 {
			l.current = 0
		}
	}
}
