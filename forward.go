package tenancy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/gorm-tenancy/tenancy/tenant"
)

const (
	// A migration that failed is not tried again for this long, doubled by each
	// further failure: it may have waited for locks that others need.
	forwardPause    = 5 * time.Second
	forwardMaxPause = time.Minute
)

var errNoHelp = errors.New("Config.Schema.Migrate returned no error, but has not changed that")

// migrating is the key of a ctx that belongs to the migration of one tenant.
type migrating struct{}

// forward runs SchemaRange.Migrate, once at a time for each tenant: a pool that
// is evicted while it is opened is opened anew beside it.
type forward struct {
	migrate func(ctx context.Context, id string) error
	timeout time.Duration
	observe func(Event)

	mu      sync.Mutex // guards the rest
	running map[string]*migration
	failed  *simplelru.LRU[string, failure]
}

type migration struct {
	done chan struct{} // closed when err is set
	err  error
}

// failure is a migration that failed.
type failure struct {
	err   error
	pause time.Duration
	until time.Time
}

func newForward(r SchemaRange, observe func(Event)) *forward {
	failed, err := simplelru.NewLRU[string, failure](manyAbsent, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &forward{migrate: r.Migrate, timeout: r.MigrateTimeout, observe: observe,
		running: make(map[string]*migration), failed: failed}
}

// run migrates the tenant, or waits for who does, or returns why that failed a
// moment ago.
func (f *forward) run(ctx context.Context, id string) error {
	f.mu.Lock()
	m, ok := f.running[id]
	if !ok {
		if last, ok := f.failed.Peek(id); ok && time.Now().Before(last.until) {
			f.mu.Unlock()
			return last.err
		}
		m = &migration{done: make(chan struct{}), err: errors.New("Config.Schema.Migrate ended its goroutine")}
		f.running[id] = m
		go f.work(ctx, id, m)
	}
	f.mu.Unlock()
	<-m.done
	return m.err
}

// work is one migration. It has a goroutine of its own, which Migrate may end
// (testing.T.FailNow does) without ending the opening that waits.
func (f *forward) work(ctx context.Context, id string, m *migration) {
	began := time.Now()
	defer func() {
		if r := recover(); r != nil {
			m.err = fmt.Errorf("Config.Schema.Migrate panicked: %v", r)
		}
		// One that was ended by Close is not the tenant's fault.
		if m.err != nil && ctx.Err() == nil {
			f.fail(id, m.err)
		}
		if m.err == nil {
			f.observe(Event{Kind: EventMigrated, Tenant: id, Took: time.Since(began)})
		}
		f.mu.Lock()
		delete(f.running, id)
		f.mu.Unlock()
		close(m.done)
	}()
	bounded, cancel := context.WithTimeout(tenant.Main(context.WithValue(ctx, migrating{}, id)), f.timeout)
	defer cancel()
	err := f.migrate(bounded, id)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("Config.Schema.Migrate took longer than MigrateTimeout, which is %s: %w", f.timeout, err)
	}
	m.err = err
}

// fail keeps the tenant from being migrated for a while.
func (f *forward) fail(id string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pause := forwardPause
	if last, ok := f.failed.Peek(id); ok {
		pause = min(2*last.pause, forwardMaxPause)
	}
	f.failed.Add(id, failure{err, pause, time.Now().Add(pause)})
}

// forgive lets the tenant be migrated at once.
func (f *forward) forgive(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed.Remove(id)
}
