package browser_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/internal/browser"
)

// envChild names the environment variable that makes TestEnds a child of itself.
const envChild = "TENANCY_TEST_BROWSER_CHILD"

// TestEnds checks that no browser outlives its tests, however they end.
func TestEnds(t *testing.T) {
	if os.Getenv(envChild) != "" {
		child(t)
		return
	}
	for _, how := range []string{"well", "killed"} {
		t.Run(how, func(t *testing.T) {
			browser.NewContext(t) // skips the test where there is no browser
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestEnds$", "-test.v")
			cmd.Env = append(os.Environ(), envChild+"="+how)
			cmd.Stderr = os.Stderr
			stdin, err := cmd.StdinPipe()
			require.NoError(t, err)
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			home := ""
			for lines := bufio.NewScanner(stdout); home == "" && lines.Scan(); {
				_, home, _ = strings.Cut(lines.Text(), "child: ")
			}
			require.NotEmpty(t, home, "the child ended")
			require.NotEmpty(t, using(t, home), "its browser runs")

			if how == "killed" {
				require.NoError(t, cmd.Process.Kill())
			} else {
				require.NoError(t, stdin.Close())
			}
			_, _ = io.Copy(io.Discard, stdout)
			err = cmd.Wait()
			if how == "killed" {
				require.Error(t, err)
				defer os.RemoveAll(home)
			} else {
				require.NoError(t, err)
				require.NoDirExists(t, home)
				require.Empty(t, using(t, home), "none is left when the tests have ended")
			}
			require.Eventually(t, func() bool { return len(using(t, home)) == 0 }, 30*time.Second, 10*time.Millisecond)
		})
	}
}

func child(t *testing.T) {
	tab := browser.NewContext(t).Open(t)
	tab.Goto("data:text/html,<p>hello")
	fmt.Println("child:", browser.Home())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it, or is gone
}

// using are the command lines of the processes that name dir.
func using(t *testing.T, dir string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var lines []string
	for _, file := range files {
		line, _ := os.ReadFile(file) // it may be gone by now
		lines = append(lines, string(line))
	}
	if len(files) == 0 { // no Linux
		out, err := exec.CommandContext(t.Context(), "ps", "-axww", "-o", "command=").Output()
		require.NoError(t, err)
		lines = strings.Split(string(out), "\n")
	}
	for _, line := range lines {
		if strings.Contains(line, dir) {
			found = append(found, line)
		}
	}
	return found
}
