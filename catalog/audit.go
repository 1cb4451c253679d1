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
		// What is there is asked first: a database whose row is written later
		// can't be in it, and one whose row is gone is known to be dropped.
		found, err := server.Databases(ctx)
		if err != nil {
			a.Unreachable[name] = err
			continue
		}
		there := map[string]bool{}
		known := map[string]bool{}
		for _, f := range found {
			there[f.Name] = f.Broken == ""
		}
		err = c.store.each(ctx, "server = ? AND state <> 'deleted'", []any{name}, func(t Tenant) error {
			known[t.Database] = true
			if t.plan.Database != "" && t.plan.Server == name {
				known[t.plan.Database] = true
			}
			if !there[t.Database] && t.Task == "" {
				a.Missing = append(a.Missing, t)
			}
			return nil
		})
		if err != nil {
			return a, c.mainError("audit", err)
		}
		moving := map[string]bool{}
		if err := c.store.each(ctx, "task = 'move'", nil, func(t Tenant) error {
			moving[t.plan.Server+"\x00"+t.plan.Database] = true
			return nil
		}); err != nil {
			return a, c.mainError("audit", err)
		}
		for _, f := range found {
			if known[f.Name] || moving[name+"\x00"+f.Name] || f.Template && f.Name == current {
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
	rows, err := c.store.many(ctx, "", "state <> 'deleted' AND server = ? AND dbname = ?", 1, o.Server, o.Name)
	if err != nil {
		return c.mainError("drop", err)
	}
	if len(rows) > 0 {
		return refuse("is " + rows[0].name() + "'s")
	}
	return session.Drop(ctx)
}
