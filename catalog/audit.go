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
	// Ours says that it certainly is this catalog's: it says so itself. Only
	// such a one is dropped by DropOrphan.
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
	current := c.template(catalogID)
	for _, name := range sortedKeys(c.cfg.Servers) {
		server := c.cfg.Servers[name]
		// What is there is asked first: the row of a new database is written
		// before it is made, so it is found. One that is dropped meanwhile may
		// be reported; to drop it once more does nothing.
		found, err := server.Databases(ctx)
		if err != nil {
			a.Unreachable[name] = err
			continue
		}
		there := map[string]bool{}
		for _, f := range found {
			there[f.Name] = f.Broken == ""
		}
		known, err := c.knownNames(ctx, func(t Tenant) {
			if t.Server == name && !there[t.Database] && t.Task == "" {
				a.Missing = append(a.Missing, t)
			}
		})
		if err != nil {
			return a, c.mainError("audit", err)
		}
		for _, f := range found {
			if known[f.Name] || f.Template && f.Name == current {
				continue
			}
			o := Orphan{Server: name, Found: f}
			if f.UID == "" && (strings.HasPrefix(f.Name, namePrefix) || strings.HasPrefix(f.Name, templatePrefix)) && f.Broken == "" {
				if m, err := c.owner(ctx, server, f.Name); err == nil {
					o.Catalog, o.UID = m.Catalog, m.UID
				}
			}
			o.Ours = o.Catalog == catalogID || f.Template && strings.HasPrefix(f.Name, templatePrefix+catalogID[:8]+"_")
			o.Old = f.Template && o.Ours
			if o.Ours || o.Catalog == "" && (strings.HasPrefix(f.Name, namePrefix) || strings.HasPrefix(f.Name, templatePrefix)) {
				a.Orphans = append(a.Orphans, o)
			}
		}
	}
	return a, nil
}

// knownNames returns the names of all databases that rows know, on any server:
// two of Config.Servers may lead to one, by two addresses.
func (c *Catalog) knownNames(ctx context.Context, visit func(Tenant)) (map[string]bool, error) {
	known := map[string]bool{}
	err := c.store.each(ctx, "state <> 'deleted' OR backup LIKE 'kept:%'", nil, func(t Tenant) error {
		known[t.Database] = true
		if t.State == Deleted {
			return nil
		}
		if t.plan.Database != "" {
			known[t.plan.Database] = true // of a move
		}
		visit(t)
		return nil
	})
	return known, err
}

func (c *Catalog) owner(ctx context.Context, server Server, name string) (Meta, error) {
	session, err := server.Session(ctx, name, false)
	if err != nil {
		return Meta{}, err
	}
	m, err := session.Owner(ctx)
	return m, errors.Join(err, session.Close())
}

// DropOrphan drops what Audit found, if it is Ours and still no row knows it.
// One that does not say whose it is may be another program's: that is dropped
// only with force.
func (c *Catalog) DropOrphan(ctx context.Context, o Orphan, force bool) (err error) {
	server, err := c.server(o.Server)
	if err != nil {
		return &tenancy.Error{Op: "drop", Err: ErrUnknownServer, Cause: err}
	}
	refuse := func(why string) error {
		return &tenancy.Error{Op: "drop", Err: ErrForeign, Detail: fmt.Sprintf("the database %q on %s %s", o.Name, o.Server, why)}
	}
	if !o.Ours && (!force || o.Catalog != "") {
		return refuse("does not say that it is this catalog's")
	}
	session, err := server.Session(ctx, o.Name, false)
	if err != nil {
		return &tenancy.Error{Op: "drop", Cause: err}
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	// Under the session nobody makes it a tenant's.
	known, err := c.knownNames(ctx, func(Tenant) {})
	if err != nil {
		return c.mainError("drop", err)
	}
	if known[o.Name] {
		return refuse("is a tenant's")
	}
	return session.Drop(ctx)
}
