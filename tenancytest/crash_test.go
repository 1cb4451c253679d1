package tenancytest_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
	"github.com/gorm-tenancy/tenancy/tenancytest"
	"github.com/gorm-tenancy/tenancy/tenancytest/testpg"
	"github.com/gorm-tenancy/tenancy/tenancytest/testsqlite"
)

// ground is where runs leave their traces.
type ground struct {
	backend tenancytest.Backend
	env     string                      // tells a child of the backend
	left    func(t *testing.T) []string // databases, templates left out
	free    func(t *testing.T)          // returns when nobody has a lock
}

// onGround is onEach, on a server or in a directory that is f's alone.
func onGround(t *testing.T, f func(t *testing.T, g ground)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		f(t, ground{testsqlite.Backend{Dir: dir}, childEnv + "=" + dir, func(t *testing.T) []string { return files(t, dir) }, func(*testing.T) {}})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		pg := pgtest.Start(t)
		dsn := pg.DSN("postgres")
		f(t, ground{testpg.Backend{DSN: dsn}, childEnv + "=" + dsn, func(t *testing.T) []string { return databases(t, pg) }, func(t *testing.T) { awaitNoLock(t, pg) }})
	})
}

// awaitNoLock waits until the server has noticed that an idle client is dead.
// It may still be at what the client has begun.
func awaitNoLock(t *testing.T, pg *pgtest.Cluster) {
	t.Helper()
	conn := pg.Admin(t)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").Scan(&n))
		return n == 0
	}, 10*time.Second, time.Millisecond)
}

// files returns all that is in dir, save templates.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	for _, path := range all {
		if name := filepath.Base(path); !strings.HasPrefix(name, "template-") || strings.HasSuffix(name, ".lock") {
			names = append(names, name)
		}
	}
	return names
}

// databases returns those of the kit, save templates.
func databases(t *testing.T, pg *pgtest.Cluster) []string {
	t.Helper()
	rows, err := pg.Admin(t).Query(t.Context(), "SELECT datname FROM pg_database WHERE datname LIKE 'tenancytest%' AND datname NOT LIKE 'tenancytest_tpl_%'")
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}

const (
	childEnv  = "TENANCYTEST_CHILD"       // a directory, or a DSN
	momentEnv = "TENANCYTEST_CHILD_STOPS" // where it stops, to be killed
)

// runChild is what a child process runs: a test that is killed.
func runChild(t *testing.T, where string) {
	var b tenancytest.Backend = testsqlite.Backend{Dir: where}
	if strings.HasPrefix(where, "postgres:") {
		b = testpg.Backend{DSN: where}
	}
	stop := func(at string) {
		if os.Getenv(momentEnv) == at {
			fmt.Println("child: ready")
			if at == "anywhere" {
				return
			}
			_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until it is killed, or the parent is gone
		}
	}
	k := newKit(t, tenancytest.Config{Backend: b, Fingerprint: "killed", Migrator: orders(func() { stop("template") })})
	if stop("anywhere"); os.Getenv(momentEnv) == "anywhere" {
		for { // until it is killed
			record("TestLoop", func(r *recorder) {
				env := k.Env(r, tenancytest.CloneMain())
				env.Two()
				env.Clone("c")
				if rand.N(2) == 0 {
					r.Errorf("is kept")
				}
			})
		}
	}
	env := k.Env(t)
	for _, ctx := range []context.Context{env.Tenant("a"), env.Tenant("b"), env.Clone("c")} {
		require.NoError(t, env.DB.WithContext(ctx).Exec("INSERT INTO orders (title) VALUES ('anvil')").Error)
	}
	stop("test")
}

// orders is a Migrator that runs halfway between its statements.
func orders(halfway func()) migrate.Migrator {
	return migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
		if _, err := db.ExecContext(ctx, "CREATE TABLE orders (title text)"); err != nil {
			return err
		}
		halfway()
		_, err := db.ExecContext(ctx, "CREATE TABLE lines (title text)")
		return err
	})
}

// Of a run that is killed, wherever it is, the next one leaves nothing, and it
// has whole templates.
func TestKilled(t *testing.T) {
	if where := os.Getenv(childEnv); where != "" {
		runChild(t, where)
		return
	}
	t.Parallel()
	for _, moment := range []string{"template", "test"} {
		t.Run(moment, func(t *testing.T) {
			onGround(t, func(t *testing.T, g ground) {
				kill := child(t, g.env, momentEnv+"="+moment)
				require.NotEmpty(t, g.left(t))

				// One that lives is left alone.
				k := newKit(t, tenancytest.Config{Backend: g.backend})
				record("beside", func(r *recorder) { k.Env(r).Tenant("a") }).passes(t)
				require.NoError(t, k.Close())
				require.NotEmpty(t, g.left(t))

				kill()
				g.free(t)
				k = newKit(t, tenancytest.Config{Backend: g.backend, Fingerprint: "killed", Migrator: orders(func() {})})
				record("after", func(r *recorder) {
					env := k.Env(r)
					require.NoError(t, env.DB.WithContext(env.Tenant("a")).Exec("SELECT * FROM lines, orders").Error)
				}).passes(t)
				require.NoError(t, k.Close())
				require.Empty(t, g.left(t))
			})
		})
	}
}

// The same, wherever the kill hits.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	onGround(t, func(t *testing.T, g ground) {
		for range 6 {
			kill := child(t, g.env, momentEnv+"=anywhere")
			<-time.After(rand.N(400 * time.Millisecond)) // it has begun
			kill()
			g.free(t)
			k := newKit(t, tenancytest.Config{Backend: g.backend})
			record("after", func(r *recorder) {
				env := k.Env(r)
				require.Zero(t, count(t, env.DB, env.Tenant("a"), &Order{}))
			}).passes(t)
			require.NoError(t, k.Close())
			require.Empty(t, g.left(t))
		}
	})
}

// child runs TestKilled in a process of its own until it is ready, and returns
// what kills it.
func child(t *testing.T, env ...string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(t, cmd.Start())
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = stdin.Close()
	}
	t.Cleanup(kill)
	var said strings.Builder
	lines := bufio.NewScanner(io.TeeReader(stdout, &said))
	for lines.Scan() {
		if lines.Text() == "child: ready" {
			return kill
		}
	}
	t.Fatalf("the child ended: %s", &said)
	return nil
}

// The database of a failed test is there when the run has ended, with its
// rows, and the next run of the package removes it.
func TestKept(t *testing.T) {
	t.Parallel()
	onGround(t, func(t *testing.T, g ground) {
		k := newKit(t, tenancytest.Config{Backend: g.backend})
		r := record("TestBroken/sub test", func(r *recorder) {
			env := k.Env(r, tenancytest.CloneMain())
			require.NoError(t, env.DB.WithContext(env.Clone("acme")).Create(&Order{Title: "anvil"}).Error)
			r.Errorf("broken")
		})
		require.Contains(t, r.said(), "tenant acme: its database is kept until the next run of this package's tests")
		require.Contains(t, r.said(), "the main database: its database is kept")
		record("TestFine", func(r *recorder) { k.Env(r).Clone("acme") }).passes(t)
		require.NoError(t, k.Close())
		require.Equal(t, 1, keptRows(t, r.said()))

		k = newKit(t, tenancytest.Config{Backend: g.backend})
		record("TestFine", func(r *recorder) { k.Env(r).Clone("acme") }).passes(t)
		require.NoError(t, k.Close())
		require.Empty(t, g.left(t))
	})
}

// keptRows counts the orders in the database that the log says how to connect to.
func keptRows(t *testing.T, log string) (n int) {
	t.Helper()
	_, rest, _ := strings.Cut(log, "tenant acme: ")
	_, rest, _ = strings.Cut(rest, " '") // psql 'URL', sqlite3 'PATH'
	where, _, ok := strings.Cut(rest, "'")
	require.True(t, ok, log)
	if strings.HasPrefix(where, "postgres:") {
		conn, err := pgx.Connect(t.Context(), where)
		require.NoError(t, err)
		defer conn.Close(t.Context())
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM orders").Scan(&n))
		return n
	}
	db, err := sql.Open("sqlite", where)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM orders").Scan(&n))
	return n
}
