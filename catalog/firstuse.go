package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorm-tenancy/tenancy"
)

// FirstUse is a tenancy.Resolver that creates tenants; see
// [Catalog.OnFirstUse].
type FirstUse struct {
	catalog *Catalog
	allow   func(ctx context.Context, id string) (CreateOptions, error)

	ctx    context.Context // of all creations
	cancel context.CancelFunc

	mu       sync.Mutex
	creating map[string]*creation // by id
	work     sync.WaitGroup
}

// creation is one Create that any number of callers wait for.
type creation struct {
	done chan struct{} // closed when err is set
	err  error
}

// OnFirstUse returns a Resolver that creates a tenant that is not there, when
// it is first used. allow is asked before, and says how; its error refuses the
// tenant (tenancy.ErrTenantNotFound, for instance). Let nobody from outside
// choose ids freely: each one that is allowed costs a database. And mind that
// the id of a tenant that was removed is one that is not there: a late request
// makes it anew, unless allow knows better.
//
// Who uses the tenant waits for it, 10 seconds at most; a creation that takes
// longer goes on by itself, for as long as 10 minutes, and its users get
// tenancy.ErrUnavailable meanwhile. Close it after the plugin.
func (c *Catalog) OnFirstUse(allow func(ctx context.Context, id string) (CreateOptions, error)) *FirstUse {
	f := &FirstUse{catalog: c, allow: allow, creating: map[string]*creation{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// Close ends the creations that are under way, and waits for their end. What
// they began is gone on with at the next use.
func (f *FirstUse) Close() error {
	f.cancel()
	f.work.Wait()
	return nil
}

// Resolve implements tenancy.Resolver.
func (f *FirstUse) Resolve(ctx context.Context, id string) (tenancy.Database, error) {
	d, err := f.catalog.Resolve(ctx, id)
	if !errors.Is(err, tenancy.ErrTenantNotFound) || f.allow == nil {
		return d, err
	}
	opts, err := f.allow(ctx, id)
	if err != nil {
		return d, err
	}
	made := f.create(id, opts)
	select {
	case <-made.done:
	case <-ctx.Done():
		return d, &tenancy.Error{Op: "create", Tenant: id, Err: tenancy.ErrUnavailable, Cause: context.Cause(ctx),
			Detail: "it is being created", Hint: "use it again in a moment"}
	}
	if made.err != nil {
		return d, made.err
	}
	return f.catalog.Resolve(ctx, id)
}

// create begins a creation, or returns the one that is under way.
func (f *FirstUse) create(id string, opts CreateOptions) *creation {
	const longest = 10 * time.Minute
	f.mu.Lock()
	defer f.mu.Unlock()
	if made, ok := f.creating[id]; ok {
		return made
	}
	made := &creation{done: make(chan struct{})}
	f.creating[id] = made
	f.work.Go(func() {
		ctx, cancel := context.WithTimeout(f.ctx, longest)
		defer cancel()
		defer func() {
			if r := recover(); r != nil { // of a Placement
				made.err = fmt.Errorf("catalog: creating %s panicked: %v", id, r)
			}
			f.mu.Lock()
			delete(f.creating, id)
			f.mu.Unlock()
			close(made.done)
		}()
		_, made.err = f.catalog.Create(ctx, id, opts)
	})
	return made
}

// Watch implements tenancy.Watcher.
func (f *FirstUse) Watch(ctx context.Context, changed func(id string)) error {
	return f.catalog.Watch(ctx, changed)
}

// Forget implements tenancy.Forgetter.
func (f *FirstUse) Forget(id string) { f.catalog.Forget(id) }
