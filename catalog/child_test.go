package catalog_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A child is this test binary, run once more as a process of its own: one that
// can be killed.

const childEnv = "TENANCY_CATALOG_TEST_CHILD"

func isChild() bool { return os.Getenv(childEnv) != "" }

// childWork is what a child does, by its name. It gets what childSpec holds,
// and talks to its parent by lines.
var childWork = map[string]func(spec childSpec, in *bufio.Scanner) error{}

type childSpec struct {
	Work string
	place
	Task, Step string
	After      bool
	ID         string
}

func runChild() int {
	var spec childSpec
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &spec); err != nil {
		fmt.Println("child:", err)
		return 2
	}
	if err := childWork[spec.Work](spec, bufio.NewScanner(os.Stdin)); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// child is a running child. It ends with its test, whatever happens.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t *testing.T, spec childSpec) *child {
	t.Helper()
	b, err := json.Marshal(spec)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return c
}

// line returns what the child says next.
func (c *child) line(t *testing.T) string {
	t.Helper()
	require.True(t, c.out.Scan(), "the child ended: %v", c.out.Err())
	return c.out.Text()
}

// end waits for the child's end, and returns what it said meanwhile.
func (c *child) end(t *testing.T) (said string, err error) {
	t.Helper()
	var b strings.Builder
	for c.out.Scan() {
		b.WriteString(c.out.Text() + "\n")
	}
	return b.String(), c.cmd.Wait()
}
