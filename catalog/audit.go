package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gorm-tenancy/tenancy"
)

// Audit is what [Catalog.Audit] found.
type Audit struct {
	// Orphans are databases and files that no row knows.
	Orphans []Orphan
	// Missing are tenants whose database is not there.
	Missing []Tenant
	// Unreachable are the servers that could not be asked.
	Unreachable map[string]error
}

// Orphan is a database that no row knows.
type Orphan struct {
	Server string
	Found
	// Ours says that it is this catalog's: it said so itself.
	Ours bool
	// Old says that it is a template of other migrations than the current
	// ones: an earlier release's, or one that is still in use.
	Old bool
}

// Audit compares the catalog with the servers, and changes nothing. Databases
// that neither have the form of this module's names nor say that they are this
// catalog's are not looked at.
func (c *Catalog) Audit(ctx context.Context) (Audit, error) {
	catalogID, err := c.catalogID(ctx)
	if err != nil {
		return Audit{}, err
	}
	a := Audit{Unreachable: map[string]error{}}
	// What is there is asked first: the row of a new database is written before
	// it is made, so it is found. One that is dropped meanwhile may be
	// reported; to drop it once more does nothing.
	found := map[string][]Found{}
	for _, name := range sortedKeys(c.cfg.Servers) {
		all, err := c.cfg.Servers[name].Databases(ctx)
		if err != nil {
			a.Unreachable[name] = err
			continue
		}
		found[name] = all
	}
	rows, known, err := c.knownNames(ctx)
	if err != nil {
		return a, c.mainError("audit", err)
	}
	if err := c.missing(ctx, rows, found, &a); err != nil {
		return a, err
	}
	current := map[string]bool{}
	for name := range c.cfg.Servers {
		current[c.template(catalogID, name)] = true
	}
	for _, name := range sortedKeys(found) {
		for _, f := range found[name] {
			o := Orphan{Server: name, Found: f}
			ours := strings.HasPrefix(f.Name, namePrefix) || strings.HasPrefix(f.Name, templatePrefix)
			if known[f.Name] || f.Template && current[f.Name] || f.Catalog != catalogID && !ours {
				continue
			}
			if f.Catalog == "" && f.Broken == "" {
				if m, err := c.ownerOf(ctx, name, f.Name); err == nil {
					o.Catalog, o.UID = m.Catalog, m.UID
				}
			}
			o.Ours = o.Catalog == catalogID || f.Template && strings.HasPrefix(f.Name, templatePrefix+catalogID[:8]+"_")
			o.Old = f.Template && o.Ours
			if o.Ours || o.Catalog == "" {
				a.Orphans = append(a.Orphans, o)
			}
		}
	}
	return a, nil
}

// missing finds the rows whose database is not there.
func (c *Catalog) missing(ctx context.Context, rows []Tenant, found map[string][]Found, a *Audit) error {
	there := map[[2]string]bool{}
	for name, all := range found {
		for _, f := range all {
			there[[2]string{name, f.Name}] = f.Broken == ""
		}
	}
	for _, t := range rows {
		server, ok := c.cfg.Servers[t.Server]
		if !ok {
			a.Unreachable[t.Server] = fmt.Errorf("%w: Config.Servers has no %q", ErrUnknownServer, t.Server)
		}
		if !ok || a.Unreachable[t.Server] != nil || there[[2]string{t.Server, t.Database}] || t.Task != "" {
			continue
		}
		// It may have been made after it was asked what is there.
		session, err := c.session(ctx, server, t.Database, false)
		if err != nil {
			a.Unreachable[t.Server] = err
			continue
		}
		exists, err := session.Exists(ctx)
		if err := errors.Join(err, session.Close()); err != nil {
			a.Unreachable[t.Server] = err
		} else if !exists {
			a.Missing = append(a.Missing, t)
		}
	}
	return nil
}

// knownNames returns the living rows, and the names of all databases that rows
// know, on any server: two of Config.Servers may lead to one, by two addresses.
func (c *Catalog) knownNames(ctx context.Context) (living []Tenant, known map[string]bool, err error) {
	known = map[string]bool{}
	err = c.store.each(ctx, "state <> 'deleted' OR backup LIKE '"+keptPrefix+"%'", nil, func(t Tenant) error {
		known[t.Database] = true
		if t.State == Deleted {
			return nil
		}
		living = append(living, t)
		if t.plan.Database != "" {
			known[t.plan.Database] = true // of a move or a rename
		}
		return nil
	})
	return living, known, err
}

func (c *Catalog) ownerOf(ctx context.Context, server, name string) (Meta, error) {
	session, err := c.session(ctx, c.cfg.Servers[server], name, false)
	if err != nil {
		return Meta{}, err
	}
	m, err := session.Owner(ctx)
	return m, errors.Join(err, session.Close())
}

// DropOrphan drops what Audit found, if it still says that it is this
// catalog's, and still no row knows it. One that does not say whose it is may
// be another program's: that is dropped only with force. One that says that it
// is another catalog's is not.
func (c *Catalog) DropOrphan(ctx context.Context, o Orphan, force bool) (err error) {
	catalogID, err := c.catalogID(ctx)
	if err != nil {
		return err
	}
	server, err := c.server(o.Server)
	if err != nil {
		return &tenancy.Error{Op: "drop", Err: ErrUnknownServer, Cause: err}
	}
	refuse := func(why string) error {
		return &tenancy.Error{Op: "drop", Err: ErrForeign, Detail: fmt.Sprintf("the database %q on %s %s", o.Name, o.Server, why)}
	}
	session, err := c.session(ctx, server, o.Name, false)
	if err != nil {
		return &tenancy.Error{Op: "drop", Cause: err}
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	// Under the session nobody makes it a tenant's, or says that it is his.
	owner, err := session.Owner(ctx)
	if err != nil {
		return &tenancy.Error{Op: "drop", Cause: err}
	}
	sealed := strings.HasPrefix(o.Name, templatePrefix+catalogID[:8]+"_")
	switch {
	case owner.Catalog == catalogID, owner.Catalog == "" && (force || sealed):
	case owner.Catalog == "":
		there, err := session.Exists(ctx)
		if err != nil || !there {
			return err // dropped already
		}
		return refuse("does not say whose it is; force drops it all the same")
	default:
		return refuse("says that it is another catalog's")
	}
	_, known, err := c.knownNames(ctx)
	if err != nil {
		return c.mainError("drop", err)
	}
	if known[o.Name] {
		return refuse("is a tenant's")
	}
	return session.Drop(ctx)
}
