package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Bouncer is one PgBouncer in front of a cluster. Its methods may be called
// concurrently.
type Bouncer struct {
	tb       TB
	program  string
	version  [2]int
	dir      string // ours: holds the configuration and the log
	port     int
	cred     *credential
	guard    *guard
	settings [][2]string

	mu  sync.Mutex
	pid int // 0 when it does not run
}

// BouncerOption changes a PgBouncer that [StartBouncer] is about to start.
type BouncerOption func(*Bouncer)

// PoolMode sets pool_mode: "session", "transaction" or "statement". PgBouncer's
// default is session.
func PoolMode(mode string) BouncerOption { return BouncerSetting("pool_mode", mode) }

// BouncerSetting sets a parameter of pgbouncer.ini's section [pgbouncer]. It
// overrides what pgtest sets itself.
func BouncerSetting(name, value string) BouncerOption {
	return func(b *Bouncer) { b.settings = append(b.settings, [2]string{name, value}) }
}

// StartBouncer starts a PgBouncer in front of c for this test alone, and stops
// it at the test's cleanup. It passes every database of c on under its own
// name, and lets the superuser of [Bouncer.DSN] in without a password.
//
// The program is looked for on PATH, then where packages put it. Without it
// the test is skipped, or fails if [EnvRequire] is 1 and [EnvDSN] is not set.
// In front of somebody else's server the test is skipped.
func StartBouncer(tb TB, c *Cluster, opts ...BouncerOption) *Bouncer {
	tb.Helper()
	if c.external != nil {
		tb.Skipf("pgtest: no PgBouncer is put in front of the server of %s", EnvDSN)
		return nil
	}
	program, err := findBouncer()
	if err != nil {
		missing(tb, err)
		return nil
	}
	b := &Bouncer{tb: tb, program: program}
	if err := b.start(c, opts); err != nil {
		b.remove()
		tb.Fatalf("pgtest: %v", err)
		return nil
	}
	tb.Cleanup(b.remove)
	return b
}

var versionRE = regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`)

func (b *Bouncer) start(c *Cluster, opts []BouncerOption) (err error) {
	// PgBouncer refuses root as PostgreSQL does.
	if b.cred, err = serverUser(); err != nil {
		return err
	}
	if b.dir, err = makeDir(b.cred); err != nil {
		return err
	}
	out, err := exec.Command(b.program, "--version").Output()
	if err != nil {
		return fmt.Errorf("pgbouncer --version: %w", err)
	}
	v := versionRE.FindSubmatch(out)
	if v == nil {
		return fmt.Errorf("pgbouncer --version says %q", out)
	}
	for i := range b.version {
		b.version[i], _ = strconv.Atoi(string(v[i+1])) // digits by their pattern
	}
	if b.guard, err = startGuard(b.dir, b.cred); err != nil {
		return err
	}
	for range 20 {
		if b.port, err = freePort(); err != nil {
			return err
		}
		if err = b.configure(c, opts); err != nil {
			return err
		}
		if err = b.run(); !errors.Is(err, errPortTaken) {
			break
		}
	}
	return err
}

func (b *Bouncer) configure(c *Cluster, opts []BouncerOption) error {
	b.settings = [][2]string{
		{"listen_addr", "127.0.0.1"},
		{"listen_port", strconv.Itoa(b.port)},
		{"unix_socket_dir", ""},
		{"pidfile", b.pidFile()},
		// Not auth_type=any: with that and a forced user, max_user_connections
		// does not hold.
		{"auth_type", "trust"},
		{"auth_file", filepath.Join(b.dir, "users.txt")},
		{"admin_users", "postgres"},
		{"max_client_conn", "1000"},
		{"default_pool_size", "20"},
	}
	for _, opt := range opts {
		opt(b)
	}
	var ini bytes.Buffer
	fmt.Fprintf(&ini, "[databases]\n* = host=127.0.0.1 port=%d\n\n[pgbouncer]\n", c.Port())
	for _, s := range b.settings { // of two settings of a parameter the last one holds
		fmt.Fprintf(&ini, "%s = %s\n", s[0], s[1])
	}
	for name, text := range map[string][]byte{
		"users.txt":     []byte(`"postgres" ""` + "\n"),
		"pgbouncer.ini": ini.Bytes(),
	} {
		file := filepath.Join(b.dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return err
		}
		if err := b.cred.own(file); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bouncer) pidFile() string { return filepath.Join(b.dir, "pid") }
func (b *Bouncer) logFile() string { return filepath.Join(b.dir, "log") }

// run starts the program and returns when it answers.
func (b *Bouncer) run() error {
	logFile, err := os.OpenFile(b.logFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close() //nolint:errcheck // PgBouncer has its own copy
	cmd := exec.Command(b.program, filepath.Join(b.dir, "pgbouncer.ini"))
	cmd.Dir = b.dir
	// No PG* variable of the developer's shell reaches it.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "LC_ALL=C", "TZ=UTC"}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	b.cred.apply(cmd)

	b.mu.Lock()
	defer b.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	b.pid = cmd.Process.Pid
	// exitedLocked waits for it from now on, by its id.
	_ = cmd.Process.Release()
	b.guard.watch(b.pid)

	deadline := time.Now().Add(startTimeout)
	for {
		if b.exitedLocked() {
			said := b.Log()
			if strings.Contains(said, "Address already in use") {
				return fmt.Errorf("%w: %s", errPortTaken, said)
			}
			return fmt.Errorf("pgbouncer ended while starting:\n%s", said)
		}
		err := b.ping()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("pgbouncer did not answer within %v: %w\n%s", startTimeout, err, b.Log())
		}
		time.Sleep(poll)
	}
}

// ping reports whether it is our PgBouncer that answers on our port. It asks
// the console, which opens no connection to the server.
func (b *Bouncer) ping() error {
	rows, err := b.show("CONFIG")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if row["key"] == "pidfile" && row["value"] == b.pidFile() {
			return nil
		}
	}
	return fmt.Errorf("on port %d there is another PgBouncer", b.port)
}

// Show asks PgBouncer's console, and returns the rows of "SHOW what" by their
// columns' names: https://www.pgbouncer.org/usage.html#show-commands
func (b *Bouncer) Show(tb TB, what string) []map[string]string {
	tb.Helper()
	rows, err := b.show(what)
	if err != nil {
		tb.Fatalf("pgtest: SHOW %s: %v", what, err)
	}
	return rows
}

func (b *Bouncer) show(what string) ([]map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, b.DSN("pgbouncer"))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is lost
	// The console knows the simple protocol only.
	results, err := conn.PgConn().Exec(ctx, "SHOW "+what).ReadAll()
	if err != nil {
		return nil, err
	}
	var out []map[string]string
	for _, result := range results {
		for _, values := range result.Rows {
			row := map[string]string{}
			for i, f := range result.FieldDescriptions {
				row[f.Name] = string(values[i])
			}
			out = append(out, row)
		}
	}
	return out, nil
}

// Addr returns PgBouncer's "host:port".
func (b *Bouncer) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// DSN returns the URL of the database dbname through PgBouncer, for a
// superuser. That of "pgbouncer" is the console.
func (b *Bouncer) DSN(dbname string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User("postgres"),
		Host:     b.Addr(),
		Path:     "/" + dbname,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// AtLeast reports whether PgBouncer's version is major.minor or later.
func (b *Bouncer) AtLeast(major, minor int) bool {
	return b.version[0] > major || b.version[0] == major && b.version[1] >= minor
}

// Log returns what PgBouncer has logged so far.
func (b *Bouncer) Log() string {
	text, err := os.ReadFile(b.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Stop ends PgBouncer at once, and every connection through it. It does
// nothing to one that doesn't run.
func (b *Bouncer) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.exitedLocked() {
		return
	}
	// Since 1.23 SIGTERM waits for the clients to leave, and SIGQUIT does not;
	// before, SIGQUIT was not handled, so it dumped core.
	// https://www.pgbouncer.org/changelog.html
	if b.AtLeast(1, 23) {
		send(b.pid, sigImmediate)
	} else {
		send(b.pid, sigTerm)
	}
	for deadline := time.Now().Add(stopTimeout); !b.exitedLocked(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			send(b.pid, sigKill)
		}
	}
}

// exitedLocked reports whether there is no process (any more). It is the only
// one that waits for the process, so b.pid can't be another's.
func (b *Bouncer) exitedLocked() bool {
	if b.pid == 0 {
		return true
	}
	if !reap(b.pid) {
		return false
	}
	b.pid = 0
	b.guard.watch(0)
	return true
}

// remove ends PgBouncer for good.
func (b *Bouncer) remove() {
	b.Stop()
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
	b.guard.dismiss()
}
