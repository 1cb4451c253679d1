package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	startTimeout = 60 * time.Second // a loaded machine under the race detector
	stopTimeout  = 15 * time.Second
	poll         = 10 * time.Millisecond
)

// Cluster is one PostgreSQL server. Its methods may be called concurrently,
// but those that can fail the test ([Cluster.Kill] and the other faults too)
// only from the goroutine that runs the test.
type Cluster struct {
	external *url.URL // somebody else's server; nothing below is set then
	tb       TB       // nil for the shared cluster
	bin      string   // the directory of postgres
	dir      string   // ours: holds data and log
	port     int      // the same in every life of the cluster
	cred     *credential
	guard    *guard
	limit    int64 // of a file, in bytes; 0 for none

	mu     sync.Mutex
	pid    int // the postmaster's; 0 when it does not run
	frozen []int
}

// errPortTaken says that postgres could not have its port.
var errPortTaken = errors.New("the port is taken")

// start makes a cluster by initdb and starts it.
func start(bin string, opts []Option) (*Cluster, error) {
	return launch(bin, func(c *Cluster) error { return c.initdb(opts) })
}

// launch starts the server whose data directory fill makes.
func launch(bin string, fill func(*Cluster) error) (_ *Cluster, err error) {
	cred, err := serverUser()
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(cred)
	if err != nil {
		return nil, err
	}
	c := &Cluster{bin: bin, dir: dir, cred: cred}
	defer func() {
		if err != nil {
			c.remove()
		}
	}()
	if c.guard, err = startGuard(dir, cred); err != nil {
		return nil, err
	}
	if err = fill(c); err != nil {
		return nil, err
	}
	for range 20 {
		if c.port, err = freePort(); err != nil {
			return nil, err
		}
		c.mu.Lock()
		err = c.startLocked()
		c.mu.Unlock()
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// makeDir makes a directory for the server's user where that user can reach
// it, which TMPDIR is not always.
func makeDir(cred *credential) (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if cred != nil && !reachable(parent) {
			continue
		}
		dir, err := os.MkdirTemp(parent, "pgtest-")
		if err != nil {
			continue
		}
		if err := cred.own(dir); err != nil {
			_ = os.RemoveAll(dir)
			return "", err
		}
		return dir, nil
	}
	return "", fmt.Errorf("no temporary directory that user %s can reach; set TMPDIR to one", cred)
}

// reachable reports whether every user can enter dir.
func reachable(dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

func (c *Cluster) initdb(opts []Option) error {
	cmd := c.command("initdb", "-D", c.data(), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	cfg := config{settings: [][2]string{
		{"listen_addresses", "127.0.0.1"},
		{"unix_socket_directories", ""},
		{"max_connections", "100"},
		{"shared_buffers", "16MB"},
		{"fsync", "off"},
		{"synchronous_commit", "off"},
		{"full_page_writes", "off"},
		{"autovacuum", "off"},
		{"max_wal_size", "1GB"}, // no checkpoint in the middle of a test
		// A standby that was away finds what it missed, also after a checkpoint.
		{"wal_keep_size", "256MB"},
		// Files in the data directory, so that a killed server leaves none in
		// /dev/shm.
		{"dynamic_shared_memory_type", "mmap"},
		{"log_timezone", "UTC"},
		{"timezone", "UTC"},
	}}
	return c.configure(cfg, opts)
}

// configure adds what cfg and opts say to the configuration in the data
// directory.
func (c *Cluster) configure(cfg config, opts []Option) error {
	for _, opt := range opts {
		opt(&cfg)
	}
	c.limit = cfg.fileLimit
	var conf bytes.Buffer
	for _, s := range cfg.settings { // of two settings of a parameter the last one holds
		fmt.Fprintf(&conf, "%s = '%s'\n", s[0], strings.ReplaceAll(s[1], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(conf.Bytes())
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return c.prependHBA(cfg.hba)
}

// prependHBA puts lines at the top of pg_hba.conf.
func (c *Cluster) prependHBA(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	name := filepath.Join(c.data(), "pg_hba.conf")
	rest, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	// The file is there, so its owner and mode stay.
	return os.WriteFile(name, append([]byte(strings.Join(lines, "\n")+"\n"), rest...), 0o600)
}

func (c *Cluster) data() string    { return filepath.Join(c.dir, "data") }
func (c *Cluster) logFile() string { return filepath.Join(c.dir, "log") }

// command is a program of PostgreSQL, run as the server's user, away from the
// caller's directory, environment and terminal.
func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	// No PG* variable of the developer's shell reaches the server.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LC_ALL=C", "TZ=UTC"}
	if lib := os.Getenv("LD_LIBRARY_PATH"); lib != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+lib)
	}
	c.cred.apply(cmd)
	return cmd
}

// freePort returns a port nobody listens on now. It is taken from below the
// range that the kernel gives to outgoing connections: one of those could
// otherwise occupy the port while the server is down, and a client that dials
// a dead port of that range again and again ends up connected to itself.
func freePort() (int, error) {
	const low = 15000
	high := 32768
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if f := strings.Fields(string(b)); len(f) == 2 {
			high, _ = strconv.Atoi(f[0])
		}
	}
	for range 100 {
		port := 0 // the kernel's choice, where there is no room below
		if high-low >= 1000 {
			port = low + rand.IntN(high-low)
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		port = l.Addr().(*net.TCPAddr).Port
		return port, l.Close()
	}
	return 0, errors.New("no free port on 127.0.0.1")
}

// startLocked starts the postmaster and returns when it answers. c.mu is held.
func (c *Cluster) startLocked() error {
	// The server's user owns dir, so the file is reached as root and handed
	// down open.
	logFile, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close() //nolint:errcheck // the server has its own copy
	begin, err := logFile.Seek(0, 2)
	if err != nil {
		return err
	}
	cmd := c.command("postgres", "-D", c.data(), "-p", strconv.Itoa(c.port))
	if c.limit > 0 {
		limitFiles(cmd, c.limit)
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		return err
	}
	c.pid = cmd.Process.Pid
	// exited waits for it from now on, by its id.
	_ = cmd.Process.Release()
	c.guard.watch(c.pid)

	deadline := time.Now().Add(startTimeout)
	for {
		if c.exitedLocked() {
			said := c.logSince(begin)
			if strings.Contains(said, "could not bind") {
				return fmt.Errorf("%w: %s", errPortTaken, said)
			}
			return fmt.Errorf("postgres ended while starting:\n%s", said)
		}
		err := c.ping()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			c.killLocked()
			return fmt.Errorf("postgres did not answer within %v: %w\n%s", startTimeout, err, c.logSince(begin))
		}
		time.Sleep(poll)
	}
}

// ping reports whether it is our server that answers on our port.
func (c *Cluster) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is lost
	var dir string
	if err := conn.QueryRow(ctx, "SELECT current_setting('data_directory')").Scan(&dir); err != nil {
		return err
	}
	if want := c.data(); dir != want {
		return fmt.Errorf("on port %d there is the server of %s, not of %s", c.port, dir, want)
	}
	return nil
}

func (c *Cluster) logSince(offset int64) string {
	b, err := os.ReadFile(c.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b[min(int(offset), len(b)):])
}

// Log returns what the server has logged so far. With
// Setting("log_statement", "all") that is every statement it got. It is empty
// for somebody else's server.
func (c *Cluster) Log() string {
	if c.external != nil {
		return ""
	}
	return c.logSince(0)
}

// Addr returns the server's "host:port".
func (c *Cluster) Addr() string {
	if u := c.external; u != nil {
		return net.JoinHostPort(u.Hostname(), strconv.Itoa(c.Port()))
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))
}

// Port returns the server's port. It stays the same over [Cluster.Restart].
func (c *Cluster) Port() int {
	if u := c.external; u != nil {
		if port, err := strconv.Atoi(u.Port()); err == nil {
			return port
		}
		return 5432
	}
	return c.port
}

// DSN returns the URL of the database dbname, for a superuser.
func (c *Cluster) DSN(dbname string) string {
	if c.external != nil {
		u := *c.external
		u.Path, u.RawPath = "/"+dbname, ""
		return u.String()
	}
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User("postgres"),
		Host:     c.Addr(),
		Path:     "/" + dbname,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// adminDB is a database that exists.
func (c *Cluster) adminDB() string {
	if c.external != nil {
		if db := strings.TrimPrefix(c.external.Path, "/"); db != "" {
			return db
		}
	}
	return "postgres"
}
