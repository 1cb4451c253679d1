// Package testpg makes the databases of tests on PostgreSQL, version 13 or
// later.
package testpg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/tenancypg"
	"github.com/gorm-tenancy/tenancy/tenancytest"
)

var _ tenancytest.Backend = Backend{}

// The environment variables that say where to test.
const (
	// EnvDSN names the one with the URL of an administrator, a role with
	// CREATEDB at least: postgres://user:password@host:5432/postgres.
	EnvDSN = pgtest.EnvDSN
	// EnvRequire names the one that, when it is 1, makes tests fail where they
	// would be skipped because there is no PostgreSQL.
	EnvRequire = pgtest.EnvRequire
)

// Backend finds a server: the one that TENANCY_TEST_DSN names; else it starts
// one for this process from PostgreSQL's own programs, found on PATH or where
// packages put them, on the loopback interface, which does not outlive the process,
// however that ends; without them tests are skipped, or fail if
// TENANCY_TEST_REQUIRE_PG is 1. The zero value is ready to use.
//
// On a server that TENANCY_TEST_DSN names, templates are shared by all packages
// and runs, and databases of failed tests can be kept. All that is made there
// has a name that begins with tenancytest_. Each test that runs takes a
// connection for main and one for each tenant.
type Backend struct {
	// DSN takes the place of TENANCY_TEST_DSN. It must lead to the server
	// itself, not through a PgBouncer.
	DSN string
	// Engine opens the connections of tests. Its Configure must not change
	// where they lead. Defaults to the zero value.
	Engine tenancypg.Engine
}

// Open implements [tenancytest.Backend].
func (b Backend) Open(ctx context.Context) (_ tenancytest.Server, err error) {
	s := &server{engine: b.Engine, pkg: packageKey()}
	dsn := b.DSN
	if dsn == "" {
		dsn = os.Getenv(EnvDSN)
	}
	if dsn == "" {
		cluster, stop, err := pgtest.Launch(pgtest.MaxConns(200))
		if errors.Is(err, pgtest.ErrNoBinaries) {
			return nil, missing(err)
		}
		if err != nil {
			return nil, fmt.Errorf("testpg: %w", err)
		}
		dsn, s.stop = cluster.DSN("postgres"), stop
	}
	if err = s.begin(ctx, dsn); err == nil && s.stop == nil {
		if err = s.sweep(ctx, deadTime); err != nil {
			err = fmt.Errorf("removing what dead runs left: %w", err)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("testpg: %w", err), s.Close(ctx))
	}
	return s, nil
}

func missing(err error) error {
	if os.Getenv(EnvRequire) != "1" {
		err = fmt.Errorf("%w: %w", tenancytest.ErrNoServer, err)
	}
	return fmt.Errorf("testpg: %w: install it (Debian, Ubuntu: apt-get install postgresql), "+
		"or set %s to the URL of a server's administrator", err, EnvDSN)
}

// parse reads the administrator's URL. Errors don't show it: it may hold a
// password.
func parse(dsn string) (*url.URL, error) {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, fmt.Errorf("%s must be a URL like postgres://user:password@host:5432/postgres", EnvDSN)
	}
	q := u.Query()
	if name := q.Get("dbname"); name != "" { // it counts more than the path
		u.Path = "/" + name
		q.Del("dbname")
		u.RawQuery = q.Encode()
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/postgres"
	}
	u.RawPath = ""
	return u, nil
}
