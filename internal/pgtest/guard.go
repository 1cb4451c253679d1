package pgtest

import (
	"fmt"
	"io"
	"os/exec"
)

// guard is a shell that outlives the test process by a moment: when the pipe
// that it reads from ends, which happens however that process dies, it stops
// the server and removes its directory.
type guard struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// Each line read is the postmaster's id, or 0 when there is none. A frozen
// server must be woken to see the signal.
const guardScript = `
pid=0
while read -r line; do pid=$line; done
if [ "$pid" -gt 0 ]; then
	kill -QUIT "$pid"
	kill -CONT "$pid"
	tries=0
	while kill -0 "$pid" && [ "$tries" -lt 100 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	kill -KILL "$pid"
fi
cd /
rm -rf "$1"
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

// watch tells the guard which process to stop; 0 is none.
func (g *guard) watch(pid int) {
	if g != nil {
		_, _ = fmt.Fprintln(g.pipe, pid) // a guard that died is missed at dismiss
	}
}

// dismiss ends the guard.
func (g *guard) dismiss() {
	if g != nil {
		_ = g.pipe.Close()
		_ = g.cmd.Wait()
	}
}
