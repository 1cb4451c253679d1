package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// patience bounds each wait of a test for what must come.
const patience = 30 * time.Second

// terminal is a run of the command in a terminal, at which the test sits.
type terminal struct {
	cmd *exec.Cmd
	tty *os.File

	mu     sync.Mutex // guards the rest
	cond   sync.Cond  // seen has become more, or ended
	seen   string
	ended  bool
	closed chan struct{}
}

func (p *place) terminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	term := &terminal{cmd: p.command(args...), closed: make(chan struct{})}
	term.cond.L = &term.mu
	var err error
	term.tty, err = pty.StartWithSize(term.cmd, &pty.Winsize{Rows: 24, Cols: 120})
	require.NoError(t, err)
	go term.read()
	t.Cleanup(func() {
		_ = term.cmd.Process.Kill() // if the test has failed
		<-term.closed
		_ = term.tty.Close()
	})
	return term
}

// read reads until the process has let go of the terminal, which is EIO on
// Linux.
func (term *terminal) read() {
	defer close(term.closed)
	buf := make([]byte, 4096)
	for {
		n, err := term.tty.Read(buf)
		term.mu.Lock()
		term.seen += string(buf[:n])
		term.ended = err != nil
		term.cond.Broadcast()
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// expect waits until text was shown.
func (term *terminal) expect(t *testing.T, text string) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		term.mu.Lock()
		defer term.mu.Unlock()
		late = true
		term.cond.Broadcast()
	})
	defer timer.Stop()
	term.mu.Lock()
	defer term.mu.Unlock()
	for !strings.Contains(term.seen, text) {
		require.False(t, term.ended, "it ended without %q:\n%s", text, term.seen)
		require.False(t, late, "no %q:\n%s", text, term.seen)
		term.cond.Wait()
	}
}

func (term *terminal) typed(t *testing.T, keys string) {
	t.Helper()
	_, err := io.WriteString(term.tty, keys)
	require.NoError(t, err)
}

const (
	ctrlC = "\x03"
	ctrlD = "\x04"
)

// ends waits for the end, and returns the exit code and all that was shown.
func (term *terminal) ends(t *testing.T) (code int, seen string) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- term.cmd.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			require.NoError(t, err)
		}
	case <-time.After(patience):
		_ = term.cmd.Process.Kill()
		<-done
		require.Fail(t, "it does not end", term.seen)
	}
	<-term.closed
	require.NotContains(t, term.seen, "DATA RACE")
	return term.cmd.ProcessState.ExitCode(), term.seen
}
