package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// asCommand makes the test binary the command itself: so it is built once, and
// runs under the race detector when the tests do.
const asCommand = "TENANCY_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "1" {
		os.Exit(run())
	}
	os.Exit(pgtest.Run(m))
}

// place is a directory with a configuration, in which the command is run as a
// person runs it.
type place struct {
	dir string
	env []string
}

const sqliteConfig = `main: sqlite:main.db
servers:
  s1: {dir: s1}
migrations: {main: migrations/main, tenants: migrations/tenants}
backups: backups
`

// newPlace is one on SQLite, with a migration for each side.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{dir: t.TempDir()}
	p.write(t, "tenancy.yaml", sqliteConfig)
	p.write(t, "migrations/main/00001_plans.sql", "-- +goose Up\nCREATE TABLE plans (id integer PRIMARY KEY, name text);\n")
	p.write(t, "migrations/tenants/00001_orders.sql", "-- +goose Up\nCREATE TABLE orders (id integer PRIMARY KEY, total integer NOT NULL);\n")
	return p
}

// with is a place that has these tenants, migrated.
func (p *place) with(t *testing.T, ids ...string) *place {
	t.Helper()
	p.ok(t, "migrate")
	for _, id := range ids {
		p.ok(t, "create", id)
	}
	return p
}

func (p *place) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(p.dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = p.dir
	// Nothing of the developer's own configuration.
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TENANCY_") && !strings.HasPrefix(kv, "PG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	// By default a program that ends sleeps for a second, to give its goroutines
	// time for a race.
	cmd.Env = append(cmd.Env, asCommand+"=1", "GORACE=atexit_sleep_ms=10")
	cmd.Env = append(cmd.Env, p.env...)
	return cmd
}

// outcome is what a run has left.
type outcome struct {
	out, err string
	code     int
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d\nstdout:\n%s\nstderr:\n%s", o.code, o.out, o.err)
}

// run runs the command with pipes.
func (p *place) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return p.runWith(t, "", args...)
}

func (p *place) runWith(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	cmd := p.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	require.NoError(t, cmd.Start())
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) }) // shows where it hangs
	err := cmd.Wait()
	late.Stop()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	o := outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	require.NotContains(t, o.err, "DATA RACE")
	return o
}

// ok runs it, and it ends well.
func (p *place) ok(t *testing.T, args ...string) string {
	t.Helper()
	o := p.run(t, args...)
	require.Zero(t, o.code, "%v: %s", args, o)
	return o.out
}

// fails runs it, and it ends with the code and says so on stderr, in one line.
func (p *place) fails(t *testing.T, code int, say string, args ...string) outcome {
	t.Helper()
	o := p.run(t, args...)
	require.Equal(t, code, o.code, "%v: %s", args, o)
	require.Contains(t, o.err, say, "%v: %s", args, o)
	if code == 1 {
		require.Empty(t, o.out, "%v: %s", args, o)
		require.Equal(t, 1, strings.Count(o.err, "\n"), "%v: %s", args, o)
	}
	return o
}

// parse reads JSON into v, of which it knows every field, and writes it again.
func parse[T any](t *testing.T, text string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&v), text)
	again, err := json.Marshal(v)
	require.NoError(t, err)
	require.JSONEq(t, text, string(again))
	return v
}

// addMigration adds a migration of the tenants.
func (p *place) addMigration(t *testing.T, version int, sql string) {
	t.Helper()
	p.write(t, fmt.Sprintf("migrations/tenants/%05d_more.sql", version), "-- +goose Up\n"+sql+"\n")
}
