package testpg

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/internal/sandbox"
	"github.com/gorm-tenancy/tenancy/tenancytest"
)

// maxWaste is how many discarded databases are left for the end of the run.
const maxWaste = 64

// database is a copy of a template.
type database struct {
	server *server
	name   string
}

// Clone implements [tenancytest.Server].
func (s *server) Clone(ctx context.Context, template string) (tenancytest.Database, error) {
	if err := s.dropWaste(ctx); err != nil {
		return nil, fmt.Errorf("testpg: %w", err)
	}
	d := &database{s, s.next()}
	err := s.exec(ctx, "CREATE DATABASE "+quote(d.name)+" TEMPLATE "+quote(template))
	if err == nil {
		err = d.mark(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("testpg: copying a template: %w", err)
	}
	return d, nil
}

// dropWaste drops the database that was discarded first, if there are many. To
// drop one that was just discarded would take some 100 ms, until the server has
// noticed that its last session is gone.
func (s *server) dropWaste(ctx context.Context) error {
	s.mu.Lock()
	if len(s.waste) < maxWaste {
		s.mu.Unlock()
		return nil
	}
	name := s.waste[0]
	s.waste = s.waste[1:]
	s.mu.Unlock()
	return s.drop(ctx, []string{name})
}

// mark writes whose the database is.
func (d *database) mark(ctx context.Context) error {
	db, err := d.server.open(d.name)
	if err != nil {
		return err
	}
	defer db.Close()
	id := d.Identity()
	_, err = db.ExecContext(ctx, fmt.Sprintf("INSERT INTO public.%s (uid, generation, catalog) VALUES (%s, %d, 'tenancytest')",
		tenancy.MetaTable, literal(id.UID), id.Generation))
	return err
}

// DSN implements [tenancytest.Database].
func (d *database) DSN() string { return d.server.dsn(d.name) }

// Identity implements [tenancytest.Database].
func (d *database) Identity() tenancy.Identity { return tenancy.Identity{UID: d.name, Generation: 1} }

// Discard implements [tenancytest.Database].
func (d *database) Discard() {
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	d.server.waste = append(d.server.waste, d.name)
}

// Keep implements [tenancytest.Database].
func (d *database) Keep(ctx context.Context, _ string) (string, error) {
	s := d.server
	if s.stop != nil {
		return "", fmt.Errorf("testpg: the server ends with this run; on one that %s names, it is kept", EnvDSN)
	}
	if err := s.exec(ctx, comment(d.name, fmt.Sprintf("%s%s %d", keptComment, s.pkg, time.Now().Unix()))); err != nil {
		return "", fmt.Errorf("testpg: %w", err)
	}
	return "its database is kept until the next run of this package's tests, one day at most: psql '" + s.shown(d.name) + "'", nil
}

// shown is the DSN for logs, which are read by many: without a password, for
// which psql will ask.
func (s *server) shown(name string) string {
	u := *s.url
	u.Path = "/" + name
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	q.Del("password")
	q.Del("sslpassword")
	u.RawQuery = q.Encode()
	return u.String()
}

// Sandbox implements [tenancytest.Database].
func (d *database) Sandbox() (tenancytest.Sandbox, error) {
	c, err := d.server.engine.Connector(d.DSN())
	if err != nil {
		return nil, fmt.Errorf("testpg: %w", err)
	}
	return sandbox.New(c), nil
}
