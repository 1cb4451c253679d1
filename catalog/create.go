package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/sqlerr"
	"github.com/gorm-tenancy/tenancy/tenant"
)

// CreateOptions is what a new tenant can be given.
type CreateOptions struct {
	// Server is one of Config.Servers. Defaults to what Config.Placement says.
	Server string
	// Labels are the application's own: a plan, a region. They can be filtered
	// by, and Seed sees them.
	Labels map[string]string
	// MaxConns is tenancy.Database.MaxConns. Defaults to 0, the plugin's own
	// limit.
	MaxConns int
}

// Create makes a tenant with a database of its own, and returns when it is
// active. If a ready database is there it takes milliseconds; otherwise the
// database is copied from a template, or made by the Migrator.
//
// It may be called again, and by several processes at once: they wait for the
// one that is at work, or go on with what one left that failed or died, and
// all return the same tenant. One that is active is returned as it is, whatever
// the options say, unless they name another server: then the error is
// ErrExists.
func (c *Catalog) Create(ctx context.Context, id string, opts CreateOptions) (Tenant, error) {
	if err := c.checkNew("create", id, opts); err != nil {
		return Tenant{}, err
	}
	var created Tenant
	var tried []string // servers that could not be reached
	err := c.until(ctx, "create", id, func(t Tenant, there bool) (bool, error) {
		var err error
		switch {
		case !there:
			created, err = c.createNew(ctx, id, opts, tried)
		case opts.Server != "" && opts.Server != t.Server && t.State != Deleting:
			return false, &tenancy.Error{Op: "create", Tenant: id, Err: ErrExists, Detail: "it is on server " + t.Server, Hint: "use Move"}
		case t.State == Active:
			created = t
			return true, nil
		case t.State == Provisioning && (t.Task == TaskCreate || t.Task == TaskClaim):
			created, err = c.start(ctx, t, t.Task, t.plan, nil)
		case t.State == Suspended:
			return false, stateError("create", t, tenancy.ErrTenantSuspended, "call Unsuspend to serve it again")
		case t.State == Moving:
			return false, stateError("create", t, tenancy.ErrTenantSuspended, "call Resume to serve it again")
		default:
			return false, stateError("create", t, ErrState, "it has an unfinished "+string(t.Task)+"; call Resume, or Remove")
		}
		if opts.Server == "" {
			// Nobody has been served from there, so the tenant can have its
			// database somewhere else.
			if t, ok := c.abandon(ctx, id, err, &tried); ok {
				opts.Labels, opts.MaxConns = t.Labels, t.MaxConns
				return false, nil
			}
		}
		return err == nil, err
	})
	return created, err
}

// checkNew finds what is wrong with a new tenant before anything is done.
func (c *Catalog) checkNew(op, id string, opts CreateOptions) error {
	if err := tenant.Validate(id); err != nil {
		return &tenancy.Error{Op: op, Tenant: id, Err: err}
	}
	if opts.Server != "" {
		if _, err := c.server(opts.Server); err != nil {
			return &tenancy.Error{Op: op, Tenant: id, Err: ErrUnknownServer, Detail: fmt.Sprintf("%q", opts.Server)}
		}
	}
	if err := checkLabels(opts.Labels); err != nil {
		return &tenancy.Error{Op: op, Tenant: id, Cause: err}
	}
	if opts.MaxConns < 0 {
		return &tenancy.Error{Op: op, Tenant: id, Detail: "MaxConns is negative"}
	}
	return nil
}

// createNew claims a ready database for id, or makes one. errLost says that
// somebody else was first.
func (c *Catalog) createNew(ctx context.Context, id string, opts CreateOptions, without []string) (Tenant, error) {
	server, err := c.pick(ctx, opts.Server, without)
	if err != nil {
		return Tenant{}, &tenancy.Error{Op: "create", Tenant: id, Cause: err}
	}
	t, err := c.claim(ctx, id, server, opts)
	if !errors.Is(err, errNoRow) {
		return t, err
	}
	return c.insert(ctx, Tenant{ID: id, Server: server, Database: newDatabaseName(id), Task: TaskCreate,
		Labels: opts.Labels, MaxConns: opts.MaxConns, plan: plan{Pinned: opts.Server != ""}}, nil)
}

// insert writes the row of a new tenant, and runs its task.
func (c *Catalog) insert(ctx context.Context, t Tenant, dump io.Reader) (Tenant, error) {
	t.UID = newUID()
	owner := newOwner()
	free, err := c.store.insert(ctx, t, owner, c.cfg.Lease)
	switch {
	case sqlerr.Unique(err): // of the database
		return t, &tenancy.Error{Op: string(t.Task), Tenant: t.ID, Err: ErrExists,
			Detail: fmt.Sprintf("the database %q on %s is another tenant's", t.Database, t.Server)}
	case err != nil:
		return t, c.mainError(string(t.Task), err)
	case !free:
		return t, errLost
	}
	c.lookups.news(newsOf(t)...)
	row, err := c.store.byUID(ctx, t.UID)
	if err != nil {
		return t, c.mainError(string(t.Task), err)
	}
	return c.run(ctx, &work{c: c, t: row, owner: owner, dump: dump})
}

// AdoptOptions is how an existing database becomes a tenant.
type AdoptOptions struct {
	CreateOptions
	// Database is its name, as it is. Required, and so is Server.
	Database string
	// Migrate brings its schema forward; otherwise it is only looked at.
	Migrate bool
	// Force adopts a database that says it is another catalog's.
	Force bool
}

// Adopt makes an existing database a tenant, under the name it has. It gets the
// table tenancy.MetaTable, and the application's grants; nothing else in it is
// changed. From then on it is as any other: Remove drops it. It may be called
// again. A database that is a tenant's already is ErrExists or ErrForeign.
func (c *Catalog) Adopt(ctx context.Context, id string, opts AdoptOptions) (Tenant, error) {
	if err := c.checkNew("adopt", id, opts.CreateOptions); err != nil {
		return Tenant{}, err
	}
	if opts.Server == "" || opts.Database == "" {
		return Tenant{}, &tenancy.Error{Op: "adopt", Tenant: id, Detail: "AdoptOptions.Server and Database are required"}
	}
	p := plan{Migrate: opts.Migrate, Force: opts.Force}
	var adopted Tenant
	err := c.until(ctx, "adopt", id, func(t Tenant, there bool) (bool, error) {
		var err error
		switch {
		case !there:
			adopted, err = c.insert(ctx, Tenant{ID: id, Server: opts.Server, Database: opts.Database, Task: TaskAdopt,
				Labels: opts.Labels, MaxConns: opts.MaxConns, Adopted: true, plan: p}, nil)
		case t.Server != opts.Server || t.Database != opts.Database:
			return false, stateError("adopt", t, ErrExists, "it has another database; choose another id, or Remove it")
		case t.State == Active:
			adopted = t
			return true, nil
		case t.Task == TaskAdopt:
			adopted, err = c.start(ctx, t, TaskAdopt, p, nil)
		default:
			return false, stateError("adopt", t, ErrState, "")
		}
		return err == nil, err
	})
	return adopted, err
}

// Restore makes a tenant of a dump: what Dump or a backup hook wrote, of this
// tenant or another one. The id must be free: Rename or Remove the tenant that
// has it. The database is a new one. A Restore that failed can be repeated with
// the dump from its beginning.
func (c *Catalog) Restore(ctx context.Context, id string, dump io.Reader, opts CreateOptions) (Tenant, error) {
	if err := c.checkNew("restore", id, opts); err != nil {
		return Tenant{}, err
	}
	if dump == nil {
		return Tenant{}, &tenancy.Error{Op: "restore", Tenant: id, Cause: errNoDump}
	}
	var restored Tenant
	counted := &counter{Reader: dump}
	dump = counted
	err := c.until(ctx, "restore", id, func(t Tenant, there bool) (bool, error) {
		var err error
		switch {
		case !there:
			var server string
			if server, err = c.pick(ctx, opts.Server, nil); err != nil {
				return false, &tenancy.Error{Op: "restore", Tenant: id, Cause: err}
			}
			restored, err = c.insert(ctx, Tenant{ID: id, Server: server, Database: newDatabaseName(id), Task: TaskRestore,
				Labels: opts.Labels, MaxConns: opts.MaxConns}, dump)
		case t.Task == TaskRestore && counted.n == 0:
			restored, err = c.start(ctx, t, TaskRestore, t.plan, dump)
		case t.Task == TaskRestore:
			return false, stateError("restore", t, ErrBusy, "another process goes on with it; call Restore again with the dump from its beginning")
		default:
			return false, stateError("restore", t, ErrExists, "Rename or Remove it, or restore under another id")
		}
		return err == nil, err
	})
	return restored, err
}

// Dump writes the tenant's database to w as it is at one moment, while it is in
// use, in the format that Restore reads. Operations that must have the database
// for themselves wait for its end, for Config.Wait, and are then ErrBusy.
func (c *Catalog) Dump(ctx context.Context, id string, w io.Writer) error {
	t, err := c.Get(ctx, id)
	if err != nil {
		return err
	}
	if t.State == Provisioning || t.State == Deleting {
		return stateError("dump", t, ErrState, "")
	}
	server, err := c.server(t.Server)
	if err != nil {
		return &tenancy.Error{Op: "dump", Tenant: id, Err: ErrUnknownServer, Cause: err}
	}
	session, err := c.session(ctx, server, t.Database, false)
	if err != nil {
		return &tenancy.Error{Op: "dump", Tenant: id, Cause: err}
	}
	if err := errors.Join(session.Dump(ctx, w), session.Close()); err != nil {
		return &tenancy.Error{Op: "dump", Tenant: id, Cause: err}
	}
	return nil
}

// counter notes whether a dump has been read from.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}
