package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gorm-tenancy/tenancy"
)

// Load is what a [Placement] knows of a server.
type Load struct {
	Server string
	// Tenants is the number of living rows on it, ready databases left out;
	// Ready is the number of those.
	Tenants, Ready int
}

// Placement picks the server of a new tenant among those that can be had, which
// are at least one and in the order of their names.
type Placement func(ctx context.Context, servers []Load) (string, error)

// LeastTenants picks the server with the fewest tenants.
func LeastTenants(_ context.Context, servers []Load) (string, error) {
	return slices.MinFunc(servers, func(a, b Load) int { return a.Tenants - b.Tenants }).Server, nil
}

// Weights picks servers in proportion to their weights: one of 2 gets twice as
// many tenants as one of 1. A server without a weight, or with 0, gets none:
// so it is emptied of new tenants.
func Weights(weights map[string]int) Placement {
	return func(_ context.Context, servers []Load) (string, error) {
		best, found := Load{}, false
		for _, s := range servers {
			w := weights[s.Server]
			if w <= 0 {
				continue
			}
			// (tenants + 1) / weight, without fractions
			if !found || (s.Tenants+1)*weights[best.Server] < (best.Tenants+1)*w {
				best, found = s, true
			}
		}
		if !found {
			return "", errors.New("no server that can be had has a weight")
		}
		return best.Server, nil
	}
}

// Loads returns the tenants of each of Config.Servers, in the order of names.
func (c *Catalog) Loads(ctx context.Context) ([]Load, error) {
	rows, err := c.store.db.QueryContext(ctx, "SELECT server, count(CASE WHEN id IS NOT NULL THEN 1 END),"+
		" count(CASE WHEN state = 'ready' THEN 1 END) FROM "+tenantsTable+" WHERE state <> 'deleted' GROUP BY server")
	if err != nil {
		return nil, c.mainError("place", err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says it
	loads := map[string]Load{}
	for rows.Next() {
		var l Load
		if err := rows.Scan(&l.Server, &l.Tenants, &l.Ready); err != nil {
			return nil, c.mainError("place", err)
		}
		loads[l.Server] = l
	}
	if err := rows.Err(); err != nil {
		return nil, c.mainError("place", err)
	}
	var all []Load
	for _, name := range sortedKeys(c.cfg.Servers) {
		l := loads[name]
		l.Server = name
		all = append(all, l)
	}
	return all, nil
}

// pick returns the server for a new tenant: the one that is wanted, or what
// Placement says, without those that were tried.
func (c *Catalog) pick(ctx context.Context, want string, without []string) (string, error) {
	if want != "" {
		return want, nil
	}
	if c.cfg.only != "" { // to count all its tenants would take longer than to claim a database
		return c.cfg.only, nil
	}
	loads, err := c.Loads(ctx)
	if err != nil {
		return "", err
	}
	loads = slices.DeleteFunc(loads, func(l Load) bool { return slices.Contains(without, l.Server) })
	if len(loads) == 0 {
		return "", &tenancy.Error{Op: "place", Err: tenancy.ErrUnavailable, Detail: fmt.Sprintf("none of the servers %q can be reached", without)}
	}
	name, err := c.cfg.Placement(ctx, loads)
	if err != nil {
		return "", fmt.Errorf("placement: %w", err)
	}
	if !slices.ContainsFunc(loads, func(l Load) bool { return l.Server == name }) {
		return "", fmt.Errorf("placement: %w: it picked %q", ErrUnknownServer, name)
	}
	return name, nil
}

// Classifier may be implemented by a [Server] that knows whose fault an error
// is: a tenant is made on another server when one can't be reached.
type Classifier interface {
	Classify(err error) tenancy.Fault
}

// unplaced is an error that says that a new tenant's server can't be reached.
// Other errors of its creation say nothing of the server: a Seed may call
// anybody.
type unplaced struct{ error }

func (u unplaced) Unwrap() error { return u.error }

// placed marks err if it says that w's server is down.
func (c *Catalog) placed(w *work, err error) error {
	cl, ok := w.server.(Classifier)
	if ok && err != nil && cl.Classify(err) == tenancy.FaultServer {
		return unplaced{err}
	}
	return err
}

// abandon frees the id of a new tenant whose server can't be reached, if it may
// be on another one, and reports whether it did. The row stays, for the
// database that may be there: Resume drops it.
func (c *Catalog) abandon(ctx context.Context, id string, err error, tried *[]string) (Tenant, bool) {
	if !errors.As(err, new(unplaced)) || len(*tried)+1 >= len(c.cfg.Servers) {
		return Tenant{}, false
	}
	t, err := c.store.byID(ctx, id)
	if err != nil || t.State != Provisioning || t.Task != TaskCreate || t.plan.Pinned {
		return t, false
	}
	u := new(set).raw("id = NULL").add("state", string(Deleting)).add("task", string(TaskRemove)).
		raw("plan = '{}', lease_until = 0, revision = revision + 1")
	if _, err := c.store.change(ctx, u, t.UID, "revision = ? AND lease_until < "+c.store.d.nowMS, t.revision); err != nil {
		return t, false
	}
	*tried = append(*tried, t.Server)
	c.cfg.Logger.Warn("tenancy: a server can't be reached; the new tenant goes to another", "tenant", id, "server", t.Server)
	return t, true
}
