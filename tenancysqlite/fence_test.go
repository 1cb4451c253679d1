package tenancysqlite

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sqlite "github.com/glebarez/go-sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// helperEnv makes the test binary another process of the application.
const helperEnv = "TENANCYSQLITE_HELPER"

// TestHelper is that process: it does what it is told, says so, and waits for
// the end of its stdin.
func TestHelper(t *testing.T) {
	mode := os.Getenv(helperEnv)
	if mode == "" {
		return
	}
	dir := os.Getenv(helperEnv + "_DIR")
	s := newServer(t, dir)
	if what, ok := strings.CutPrefix(mode, "kill-"); ok {
		dump, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "dump"))
		must(t, err)
		sess := begin(t, s, "a")
		fmt.Println("ready")
		killed[what](t, s, sess, dump)
	}
	switch mode {
	case "session":
		begin(t, s, "a")
	case "migrate":
		_, err := Engine{}.LockDatabase(t.Context(), tenancy.Database{DSN: filepath.Join(dir, "a")}, migrate.Lock{})
		must(t, err)
	case "idle":
		must(t, app(t, s, "a").Ping())
	case "read", "write":
		tx, err := app(t, s, "a").BeginTx(t.Context(), &sql.TxOptions{})
		must(t, err)
		defer func() { _ = tx.Rollback() }()
		if mode == "write" {
			_, err = tx.Exec("INSERT INTO a VALUES (7)")
		} else {
			var n int
			err = tx.QueryRow("SELECT count(*) FROM a").Scan(&n)
		}
		must(t, err)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// helper starts that process, and returns what kills it.
func helper(t *testing.T, mode, dir string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$", "-test.v")
	cmd.Env = append(os.Environ(), helperEnv+"="+mode, helperEnv+"_DIR="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = in.Close() }
	t.Cleanup(kill)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "ready" {
			return kill
		}
	}
	t.Fatal("the helper did not start")
	return nil
}

func TestSessionExcludesOtherProcesses(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, dir)
	kill := helper(t, "session", dir)
	for _, steal := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		_, err := s.Session(ctx, "a", steal)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "end the process") != steal {
			t.Errorf("steal %v: %v", steal, err)
		}
	}
	must(t, begin(t, s, "b").Close())
	kill()
	must(t, begin(t, s, "a").Close())
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("there is %q", got)
	}
}

func opened(t *testing.T) (string, *Server, catalog.Session) {
	t.Helper()
	dir := t.TempDir()
	s := newServer(t, dir)
	sess := begin(t, s, "a")
	must(t, sess.Create(t.Context(), ""))
	adminExec(t, sess, "CREATE TABLE a (id integer)")
	must(t, sess.Open(t.Context()))
	return dir, s, sess
}

func notFenced(t *testing.T, what string, sess catalog.Session) {
	t.Helper()
	if err := sess.Fence(t.Context(), 30*time.Millisecond); !errors.Is(err, catalog.ErrNotFenced) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestFenceSeesOtherProcesses(t *testing.T) {
	for _, mode := range []string{"idle", "read", "write"} {
		dir, _, sess := opened(t)
		kill := helper(t, mode, dir)
		notFenced(t, mode, sess)
		kill()
		must(t, sess.Fence(t.Context(), 0))
		if n := count(t, sess, "SELECT count(*) FROM a"); n != 0 {
			t.Errorf("%s: %d rows", mode, n)
		}
	}
}

func TestFenceSeesThisProcess(t *testing.T) {
	_, s, sess := opened(t)
	pool := app(t, s, "a")
	must(t, pool.Ping())
	notFenced(t, "idle", sess)
	tx, err := pool.Begin()
	must(t, err)
	notFenced(t, "transaction", sess)
	_, err = tx.Exec("INSERT INTO a VALUES (1)")
	must(t, err)
	notFenced(t, "write", sess)
	must(t, tx.Commit())
	must(t, pool.Ping()) // a failed Fence does no harm
	// It may finish while Fence waits.
	done := make(chan error)
	go func() { done <- sess.Fence(context.Background(), time.Minute) }()
	must(t, pool.Close(), <-done)
	if n := count(t, sess, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func isMoved(err error) bool {
	var sqliteErr *sqlite.Error
	return errors.As(err, &sqliteErr) && sqliteErr.Code() == sqlite3.SQLITE_READONLY_DBMOVED
}

// Connections that Fence can't see can't write either: those that have read
// nothing yet, and those of somebody who switched WAL off.
func TestFencedAgainstUnseenConnections(t *testing.T) {
	dir, _, sess := opened(t)
	path := DSN(filepath.Join(dir, "a")) + "?mode=rw"
	lazy, err := registered().Open(path)
	must(t, err)
	defer lazy.Close()
	must(t, sess.Fence(t.Context(), 0))
	must(t, sess.Open(t.Context()), sess.Fence(t.Context(), 0))
	adminExec(t, sess, "INSERT INTO a VALUES (1)")
	for _, query := range []string{"PRAGMA journal_mode(WAL)", "INSERT INTO a VALUES (2)", "CREATE TABLE b (id integer)"} {
		_, err := lazy.(driverConn).ExecContext(t.Context(), query, nil)
		if !isMoved(err) {
			t.Errorf("%s: %v", query, err)
		}
	}
	if n := count(t, sess, "SELECT count(*) FROM a"); n != 1 {
		t.Errorf("%d rows", n)
	}
	for _, f := range files(t, dir) {
		if strings.HasPrefix(f, "a") {
			t.Errorf("there is %q", f)
		}
	}
}
