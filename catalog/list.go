package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// Get returns the living tenant id, as it is in the main database now.
func (c *Catalog) Get(ctx context.Context, id string) (Tenant, error) {
	if err := tenant.Validate(id); err != nil {
		return Tenant{}, &tenancy.Error{Op: "get", Tenant: id, Err: err}
	}
	t, err := c.store.byID(ctx, id)
	if errors.Is(err, errNoRow) {
		return t, notFound("get", id)
	}
	if err != nil {
		return t, c.mainError("get", err)
	}
	return t, nil
}

// Filter picks tenants; what is empty picks all.
type Filter struct {
	// States defaults to all but Deleted.
	States []State
	Server string
	// Labels are those that a tenant must have, with their values.
	Labels map[string]string
	// Unfinished picks those with a Task.
	Unfinished bool
}

func (c *Catalog) where(f Filter) (where string, args []any) {
	parts := []string{"state <> 'deleted'"}
	if len(f.States) > 0 {
		parts[0] = "state IN (?" + strings.Repeat(", ?", len(f.States)-1) + ")"
		for _, s := range f.States {
			args = append(args, string(s))
		}
	}
	if f.Server != "" {
		parts = append(parts, "server = ?")
		args = append(args, f.Server)
	}
	for _, key := range sortedKeys(f.Labels) {
		parts = append(parts, "labels ->> CAST(? AS text) = CAST(? AS text)")
		args = append(args, key, f.Labels[key])
	}
	if f.Unfinished {
		parts = append(parts, "task <> ''")
	}
	return strings.Join(parts, " AND "), args
}

// List returns the tenants that f picks, in no order that means anything. They
// are read by the page; one that comes or changes meanwhile may be missed.
func (c *Catalog) List(ctx context.Context, f Filter) iter.Seq2[Tenant, error] {
	return func(yield func(Tenant, error) bool) {
		where, args := c.where(f)
		stop := errors.New("stop")
		err := c.store.each(ctx, where, args, func(t Tenant) error {
			if !yield(t, nil) {
				return stop
			}
			return nil
		})
		if err != nil && err != stop { //nolint:errorlint // it is this very one
			yield(Tenant{}, c.mainError("list", err))
		}
	}
}

// IDs is List for tenancy.Each: the ids of active tenants, unless f names other
// states.
func (c *Catalog) IDs(ctx context.Context, f Filter) iter.Seq2[string, error] {
	if len(f.States) == 0 {
		f.States = []State{Active}
	}
	return func(yield func(string, error) bool) {
		for t, err := range c.List(ctx, f) {
			if err == nil && t.ID == "" {
				continue
			}
			if !yield(t.ID, err) {
				return
			}
		}
	}
}

// checkLabels keeps the keys to what means the same to every database.
func checkLabels(labels map[string]string) error {
	for key := range labels {
		if !labelKey.MatchString(key) {
			return fmt.Errorf("the label %q has a key that is not made of 1 to 63 letters, digits and _ . - /", key)
		}
	}
	return nil
}

var labelKey = regexp.MustCompile(`^[A-Za-z0-9_./-]{1,63}$`)

// Change is what [Catalog.Update] changes; nil leaves a field as it is.
type Change struct {
	// Labels are set or, where the value is "", taken away.
	Labels map[string]string
	// MaxConns is tenancy.Database.MaxConns; the tenant's pools are opened
	// anew.
	MaxConns *int
}

// Update changes what does not concern a tenant's database.
func (c *Catalog) Update(ctx context.Context, id string, change Change) (Tenant, error) {
	if err := checkLabels(change.Labels); err != nil {
		return Tenant{}, &tenancy.Error{Op: "update", Tenant: id, Cause: err}
	}
	for {
		t, err := c.Get(ctx, id)
		if err != nil {
			return t, err
		}
		u := new(set).raw("revision = revision + 1")
		if change.MaxConns != nil {
			if *change.MaxConns < 0 {
				return t, &tenancy.Error{Op: "update", Tenant: id, Detail: "MaxConns is negative"}
			}
			u.add("max_conns", *change.MaxConns)
		}
		if len(change.Labels) > 0 {
			labels := map[string]string{}
			for k, v := range t.Labels {
				labels[k] = v
			}
			for k, v := range change.Labels {
				if labels[k] = v; v == "" {
					delete(labels, k)
				}
			}
			u.raw("labels = "+c.store.json(), labelText(labels))
		}
		updated, err := c.store.change(ctx, u, t.UID, "revision = ? AND state = ?", t.revision, string(t.State))
		if errors.Is(err, errLost) {
			continue // changed by somebody else meanwhile
		}
		if err != nil {
			return t, c.mainError("update", err)
		}
		if updated.place() != t.place() {
			c.lookups.news(id)
		}
		return updated, nil
	}
}

// Run keeps the catalog in order until ctx ends: it fills up ready databases,
// as soon as this process has claimed one and otherwise every minute, finishes
// what was left unfinished, and purges old tombstones. One process is enough,
// and any number may. What fails goes to Config.Logger, and is tried again a
// minute later.
func (c *Catalog) Run(ctx context.Context) error {
	const every = time.Minute
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		c.tidy(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		case <-c.claimed:
			if err := c.FillReady(ctx); err != nil && ctx.Err() == nil {
				c.cfg.Logger.Warn("tenancy: ready databases", "error", err)
			}
		}
	}
}

func (c *Catalog) tidy(ctx context.Context) {
	r, err := c.Resume(ctx)
	for _, f := range r.Failed {
		c.cfg.Logger.Warn("tenancy: unfinished work needs attention", "tenant", f.Tenant.name(), "task", f.Tenant.Task, "error", f.Err)
	}
	_, purgeErr := c.Purge(ctx)
	if err := errors.Join(err, purgeErr, c.FillReady(ctx)); err != nil && ctx.Err() == nil {
		c.cfg.Logger.Warn("tenancy: keeping the catalog in order", "error", err)
	}
}
