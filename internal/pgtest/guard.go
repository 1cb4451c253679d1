package pgtest

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// guard is a shell that outlives the test process by a moment: when the pipe
// that it reads from ends, which happens however that process dies, it stops
// the server and removes its directory.
type guard struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// Each line read has the postmaster's id, or 0 when there is none, and those of
// its frozen backends: who is frozen must be woken to see a signal.
const guardScript = `
dir=$1
ids=0
while read -r line; do ids=$line; done
set -- $ids
if [ "$1" -gt 0 ]; then
	kill -QUIT "$1"
	kill -CONT "$@"
	tries=0
	while kill -0 "$1" && [ "$tries" -lt 100 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	kill -KILL "$1"
fi
cd /
rm -rf "$dir"
`

func startGuard(dir string, cred *credential) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "pgtest-guard", dir)
	cmd.Dir = dir
	cred.apply(cmd)
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Its output goes nowhere: if it held the test's, "go test" would wait
	// for it.
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guard of the server: %w", err)
	}
	return &guard{cmd: cmd, pipe: pipe}, nil
}

// watch tells the guard which process to stop, 0 for none, and which of its
// children are frozen.
func (g *guard) watch(pid int, frozen ...int) {
	if g != nil {
		ids := strings.Trim(fmt.Sprint(append([]int{pid}, frozen...)), "[]")
		_, _ = fmt.Fprintln(g.pipe, ids) // without its guard a cluster still works
	}
}

// dismiss ends the guard.
func (g *guard) dismiss() {
	if g != nil {
		_ = g.pipe.Close()
		_ = g.cmd.Wait()
	}
}
