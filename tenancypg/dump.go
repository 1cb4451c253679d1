package tenancypg

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// undoTimeout bounds the removal of a database that could not be filled.
	undoTimeout = 30 * time.Second
	// killPatience is how long a program that was killed may leave its pipes
	// open.
	killPatience = 5 * time.Second
	// programSuffix tells a program from the session's other connections.
	programSuffix = " program"
	// stderrKept is how much of a program's last words is kept.
	stderrKept = 2048
)

// Dump implements [catalog.Session] with pg_dump and its custom format, which
// holds neither roles nor the database's own grants and settings. It sees one
// snapshot, and needs no fence.
func (ses *session) Dump(ctx context.Context, w io.Writer) error {
	out := &keeper{w: w}
	err := ses.run(ctx, "pg_dump", []string{"--format=custom", "--no-password"}, nil, out)
	if out.err != nil && ctx.Err() == nil {
		err = out.err // pg_dump only knows that its pipe broke
	}
	if err != nil {
		return explain(fmt.Sprintf("dumping %q", ses.name), err)
	}
	return nil
}

// Restore implements [catalog.Session] with pg_restore. What it restores
// belongs to the administrator, and has no grants before Mark or Open. When it
// fails, the database is dropped, so that no half of a dump can be taken for
// the whole.
func (ses *session) Restore(ctx context.Context, r io.Reader) error {
	ses.closeTenant()
	doing := fmt.Sprintf("restoring %q", ses.name)
	if err := ses.drop(ctx); err != nil {
		return explain(doing, err)
	}
	if err := ses.create(ctx, ""); err != nil {
		return explain(doing, err)
	}
	in := &keeper{r: r}
	err := ses.run(ctx, "pg_restore", []string{
		// No --single-transaction: a lock for each of many thousand tables
		// would overflow the server's table of locks.
		"--exit-on-error", "--no-owner", "--no-privileges", "--no-password", "--dbname=" + ses.conninfo(),
	}, in, nil)
	if in.err != nil && ctx.Err() == nil {
		err = fmt.Errorf("reading the dump: %w", in.err)
	}
	if err == nil {
		return nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if dropErr := ses.drop(undo); dropErr != nil {
		err = fmt.Errorf("%w; and what was restored is still there: %w", err, dropErr)
	}
	return explain(doing, err)
}

// conninfo names the database to pg_restore, which without --dbname writes SQL
// to its output and does not ask PGDATABASE.
func (ses *session) conninfo() string {
	return "dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(ses.name) + "'"
}

// keeper keeps the first error of the caller's own reader or writer.
type keeper struct {
	r   io.Reader
	w   io.Writer
	err error
}

func (k *keeper) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	if err != nil && err != io.EOF && k.err == nil {
		k.err = err
	}
	return n, err
}

func (k *keeper) Write(p []byte) (int, error) {
	n, err := k.w.Write(p)
	if err != nil && k.err == nil {
		k.err = err
	}
	return n, err
}

// tail keeps the end of what is written.
type tail struct{ bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	n, _ := t.Buffer.Write(p)
	if extra := t.Len() - stderrKept; extra > 0 {
		t.Next(extra)
	}
	return n, nil
}

// run runs one of PostgreSQL's programs on the database.
func (ses *session) run(ctx context.Context, program string, args []string, in io.Reader, out io.Writer) error {
	file, err := ses.program(program)
	if err != nil {
		return err
	}
	env, err := ses.libpqEnv(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Env, cmd.WaitDelay = env, killPatience
	cmd.Stdin, cmd.Stdout = in, out
	var said tail
	cmd.Stderr = &said

	ended := make(chan error, 1)
	start := func() error {
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() { ended <- cmd.Wait() }()
		return nil
	}
	// With a lock of its own: the program is connected, or has ended.
	err = ses.admitted(ctx, func() error {
		if err := start(); err != nil {
			return err
		}
		for {
			var there bool
			err := ses.adminLocked(ctx, func(pc *pgx.Conn) error {
				return pc.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND application_name = $2)",
					ses.name, ses.token+programSuffix).Scan(&there)
			})
			if err != nil || there {
				return err
			}
			select {
			case err := <-ended:
				ended <- err
				return nil
			case <-time.After(poll):
			}
		}
	})
	if err != nil {
		cancel()
		if cmd.Process != nil {
			<-ended
		}
		return err
	}
	if err = <-ended; err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	words := strings.TrimSpace(said.String())
	hint := ""
	switch {
	case strings.Contains(words, "server version mismatch"), strings.Contains(words, "unsupported version"):
		hint = fmt.Sprintf(" (%s is older than the server or the dump: install the server's version and name it in ServerConfig.BinDir)", file)
	case strings.Contains(words, "unrecognized configuration parameter"):
		hint = fmt.Sprintf(" (%s is newer than the server: name the server's version in ServerConfig.BinDir)", file)
	case strings.Contains(words, "No space left on device"):
		hint = " (a disk is full: free space on it, and run this again)"
	case strings.Contains(words, "permission denied"), strings.Contains(words, "must be owner"):
		hint = " (the administrator must own the database and what is in it)"
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w: %s%s", program, err, words, hint)
	}
	return fmt.Errorf("%s: %w", program, err)
}

// program finds pg_dump or pg_restore. The server's own version is best: an
// older one refuses, and a newer one may set parameters that the server does
// not know.
func (ses *session) program(name string) (string, error) {
	if dir := ses.s.cfg.BinDir; dir != "" {
		file := filepath.Join(dir, name)
		if _, err := os.Stat(file); err != nil {
			return "", fmt.Errorf("%s is not in ServerConfig.BinDir: %w", name, err)
		}
		return file, nil
	}
	major := strconv.Itoa(ses.roles.version / 10000)
	packaged, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // fails on a bad pattern only
	if own := filepath.Join("/usr/lib/postgresql", major, "bin", name); slices.Contains(packaged, own) {
		return own, nil
	}
	if file, err := exec.LookPath(name); err == nil {
		return file, nil
	}
	version := func(file string) int {
		v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(file))))
		return v
	}
	if len(packaged) > 0 {
		return slices.MaxFunc(packaged, func(a, b string) int { return cmp.Compare(version(a), version(b)) }), nil
	}
	return "", fmt.Errorf("%s was not found: install PostgreSQL %s's client programs (Debian, Ubuntu: postgresql-client-%s) or set ServerConfig.BinDir", name, major, major)
}
