// Package pgtest gives tests real PostgreSQL servers: throwaway clusters of
// their own on the loopback interface, and the ways in which a server fails.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
//
//	func TestQuery(t *testing.T) {
//		pg := pgtest.Shared(t)           // one per test binary
//		dsn := pg.DSN(pg.CreateDatabase(t))
//		...
//	}
//
//	func TestServerGone(t *testing.T) {
//		pg := pgtest.Start(t)            // this test's own
//		pg.Kill()
//		...
//	}
//
// [StartBouncer] puts a PgBouncer in front of a cluster, and [Cluster.Standby]
// starts a standby that streams from it.
//
// A cluster needs nothing but PostgreSQL's binaries (see [Start]). It listens
// on 127.0.0.1 only, trusts every local user (but see [HBA]), and gives up durability for
// speed. It does not outlive the test process, however that ends.
package pgtest

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"

	"github.com/gorm-tenancy/tenancy/internal/testmain"
)

const (
	// EnvDSN names the environment variable with the URL of a server's
	// administrator. [Shared] uses that server instead of starting one.
	EnvDSN = "TENANCY_TEST_DSN"
	// EnvRequire names the environment variable that, when it is 1, makes a
	// test fail where it would be skipped because there is no PostgreSQL or no
	// PgBouncer.
	EnvRequire = "TENANCY_TEST_REQUIRE_PG"
)

// TB is what this package uses of [testing.TB].
type TB = testmain.TB

// M is what this package uses of [testing.M].
type M = testmain.M

// Option changes a cluster that [Start] or [Cluster.Standby] is about to start.
type Option func(*config)

type config struct {
	settings  [][2]string
	hba       []string
	fileLimit int64
}

// MaxConns sets the server's max_connections. Of these, PostgreSQL reserves 3
// for superusers, and pgtest always connects as one, so a client meets the
// limit at n all the same. Defaults to 100.
func MaxConns(n int) Option {
	return Setting("max_connections", fmt.Sprint(n))
}

// Setting sets a parameter of postgresql.conf. It overrides what pgtest sets
// itself; ALTER SYSTEM overrides it in turn.
func Setting(name, value string) Option {
	return func(c *config) { c.settings = append(c.settings, [2]string{name, value}) }
}

// HBA puts lines before those of pg_hba.conf that trust every local user: of the
// lines that match a connection, the first one counts. A role that must show a
// password, on a server that trusts the others:
//
//	pgtest.HBA("host all clerk 127.0.0.1/32 scram-sha-256")
func HBA(lines ...string) Option {
	return func(c *config) { c.hba = append(c.hba, lines...) }
}

// FileLimit keeps the server from writing any file beyond so many bytes: a
// table that grows too large fails as on a disk that is full ("could not extend
// file ...: File too large", SQLSTATE XX000), and the rest of the server goes on. It
// must be more than 16 MiB, the size of a WAL segment, without which no server
// goes on. initdb is not limited.
func FileLimit(bytes int64) Option {
	return func(c *config) { c.fileLimit = bytes }
}

// Start starts a cluster for this test alone and stops it at the test's
// cleanup. Tests that break a server use it; others share one (see [Shared]).
//
// The binaries are looked for on PATH, then where packages put them, the
// newest version first. Without them the test is skipped, or fails if
// [EnvRequire] is 1 and [EnvDSN] is not set: whoever names a server has one,
// but not one to break.
func Start(tb TB, opts ...Option) *Cluster {
	tb.Helper()
	bin, err := findBinaries()
	if err != nil {
		missing(tb, err)
		return nil
	}
	c, err := start(bin, opts)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
		return nil
	}
	c.tb = tb
	tb.Cleanup(c.remove)
	return c
}

// ErrNoBinaries is returned by [Launch] where there is no PostgreSQL.
var ErrNoBinaries = errNoBinaries

// Launch starts a cluster that is no test's own, for a package that serves
// tests itself. stop stops it; it does not outlive the process in any case. The
// faults panic on it. It looks for the binaries as [Start] does.
func Launch(opts ...Option) (c *Cluster, stop func(), err error) {
	bin, err := findBinaries()
	if err != nil {
		return nil, nil, err
	}
	if c, err = start(bin, opts); err != nil {
		return nil, nil, fmt.Errorf("pgtest: %w", err)
	}
	return c, c.remove, nil
}

// shared is the cluster of this test binary.
var shared struct {
	mu   sync.Mutex
	c    *Cluster
	err  error
	done bool // Run has ended, or a start was tried: don't try (again)
}

// Shared returns the cluster that all tests of this binary share, and starts
// it when first asked. [Run] stops it. The faults ([Cluster.Kill] and so on)
// panic on it. If [EnvDSN] is set, it is that server. See [Start] for what
// happens without PostgreSQL.
func Shared(tb TB) *Cluster {
	tb.Helper()
	if dsn := os.Getenv(EnvDSN); dsn != "" {
		c, err := external(dsn)
		if err != nil {
			tb.Fatalf("pgtest: %v", err)
			return nil
		}
		return c
	}
	bin, err := findBinaries()
	if err != nil {
		missing(tb, err)
		return nil
	}

	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.done {
		shared.done = true
		shared.c, shared.err = start(bin, nil)
	}
	if shared.err != nil {
		tb.Fatalf("pgtest: the shared cluster: %v", shared.err)
		return nil
	}
	if shared.c == nil {
		tb.Fatalf("pgtest: Shared was called after Run ended")
		return nil
	}
	return shared.c
}

// Run runs the tests, stops the shared cluster, and returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
func Run(m M) int { return Main(m).Run() }

// Main is [Run] for a TestMain that hands its M on:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Main(m)) }
//
// pgtest itself runs no goroutines.
func Main(m M) M { return testmain.After(m, end) }

// end stops the shared cluster.
func end() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.c != nil {
		shared.c.remove()
		shared.c = nil
	}
	shared.done = true
	return nil
}

// missing ends a test that can't have PostgreSQL, PgBouncer or a standby.
func missing(tb TB, err error) {
	tb.Helper()
	advice := "install it (Debian, Ubuntu: apt-get install postgresql), put its initdb and postgres on PATH, " +
		"or set " + EnvDSN + " to the URL of a server's administrator for the tests that don't need a server of their own"
	switch {
	case errors.Is(err, errNoBouncer):
		advice = "install it (Debian, Ubuntu: apt-get install pgbouncer) or put it on PATH"
	case errors.Is(err, errNoBasebackup):
		advice = "install PostgreSQL's client programs of the server's version (Debian, Ubuntu: apt-get install postgresql)"
	}
	testmain.Missing(tb, "pgtest", err, advice, os.Getenv(EnvRequire) == "1" && os.Getenv(EnvDSN) == "")
}

// external is the server at dsn, which somebody else runs.
func external(dsn string) (*Cluster, error) {
	u, err := url.Parse(dsn)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || u.Hostname() == "" {
		// The value is not printed: it may hold a password.
		return nil, fmt.Errorf("%s must be a URL like postgres://user:password@host:5432/postgres", EnvDSN)
	}
	return &Cluster{external: u}, nil
}
