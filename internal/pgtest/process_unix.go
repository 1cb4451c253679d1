//go:build unix

package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type signal = syscall.Signal

// The postmaster's shutdown modes:
// https://www.postgresql.org/docs/current/server-shutdown.html
const (
	sigFast      = syscall.SIGINT
	sigImmediate = syscall.SIGQUIT
	// sigTerm is what PgBouncer stops by; see [Bouncer.Stop].
	sigTerm = syscall.SIGTERM
	sigKill = syscall.SIGKILL
)

// credential is the user that servers run as; nil is the caller's own.
type credential struct {
	name     string
	uid, gid uint32
}

// serverUser returns the user to run servers as: PostgreSQL refuses root.
func serverUser() (*credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &credential{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

func (c *credential) String() string {
	if c == nil {
		return "of this process"
	}
	return c.name
}

func (c *credential) own(dir string) error {
	if c == nil {
		return nil
	}
	return os.Chown(dir, int(c.uid), int(c.gid))
}

// apply makes cmd run as c, in a process group of its own: Ctrl-C at the
// terminal ends the tests, and they end the server.
func (c *credential) apply(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.uid, Gid: c.gid}
	}
}

// limitFiles runs cmd by a shell that sets its limit and then becomes it: it
// keeps its id. Without the trap, SIGXFSZ would end the process that writes too
// much; what is ignored stays so over exec.
func limitFiles(cmd *exec.Cmd, bytes int64) {
	// POSIX's ulimit -f counts blocks of 512 bytes, but bash's, where it is
	// not in POSIX mode, 1024.
	const script = `trap '' XFSZ; block=512; [ -n "$BASH_VERSION" ] && [ -z "$POSIXLY_CORRECT" ] && ! shopt -qo posix && block=1024
ulimit -f $(($0 / block)) && exec "$@"`
	cmd.Args = append([]string{"/bin/sh", "-c", script, strconv.FormatInt(bytes, 10), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
}

func send(pid int, sig signal) { _ = syscall.Kill(pid, sig) }

// reap reports whether our child pid has ended, and waits for it if so.
func reap(pid int) bool {
	for {
		got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		return got == pid || err == syscall.ECHILD
	}
}

// freezeTree stops the postmaster pid first, which starts no backend any more
// then, and its backends after it. It returns who was stopped when all are.
func freezeTree(pid int) (stopped []int, err error) {
	stopped = []int{pid}
	deadline := time.Now().Add(stopTimeout)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	for {
		all, err := processes()
		if err != nil {
			return stopped, err
		}
		if all[pid].stopped() {
			moving := 0
			stopped = stopped[:1]
			for child, p := range all {
				if p.parent != pid || p.dead() {
					continue
				}
				stopped = append(stopped, child)
				if !p.stopped() {
					moving++
					send(child, syscall.SIGSTOP)
				}
			}
			if moving == 0 {
				return stopped, nil
			}
		}
		if time.Now().After(deadline) {
			return stopped, fmt.Errorf("the server did not stop within %v", stopTimeout)
		}
		time.Sleep(time.Millisecond)
	}
}

// thaw wakes the postmaster, the first of pids, last: it must not meet a
// frozen backend.
func thaw(pids []int) {
	for i := len(pids) - 1; i >= 0; i-- {
		send(pids[i], syscall.SIGCONT)
	}
}

// killTree kills the postmaster pid and its backends and waits until they are
// gone. They are frozen first, since orphans are nobody's children.
func killTree(pid int, exited func() bool) {
	tree, err := freezeTree(pid)
	if err != nil {
		tree = []int{pid}
	}
	for _, p := range tree {
		send(p, syscall.SIGKILL)
	}
	for deadline := time.Now().Add(stopTimeout); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if !exited() {
			continue
		}
		all, err := processes()
		if err != nil {
			return
		}
		gone := true
		for _, p := range tree[1:] {
			if info, ok := all[p]; ok && !info.dead() {
				gone = false
			}
		}
		if gone {
			return
		}
	}
}

// process is what /proc and ps say of a process.
type process struct {
	parent int
	state  byte
}

func (p process) stopped() bool { return p.state == 'T' }

// dead is also true of a process whose parent has not waited for it: its
// sockets are closed.
func (p process) dead() bool { return p.state == 'Z' || p.state == 'X' }

// processes returns all processes by id.
func processes() (map[int]process, error) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return processesByPS()
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := make(map[int]process)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state ppid ...", and the name may hold ")" and spaces.
		_, rest, _ := strings.Cut(string(b[max(strings.LastIndexByte(string(b), ')'), 0):]), ") ")
		if f := strings.Fields(rest); len(f) >= 2 {
			parent, _ := strconv.Atoi(f[1])
			all[pid] = process{parent: parent, state: f[0][0]}
		}
	}
	return all, nil
}

func processesByPS() (map[int]process, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=,state=").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	all := make(map[int]process)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 {
			pid, _ := strconv.Atoi(f[0])
			parent, _ := strconv.Atoi(f[1])
			all[pid] = process{parent: parent, state: f[2][0]}
		}
	}
	return all, nil
}

// removeSharedMemory removes the System V segment that a killed server of this
// data directory left: the seventh line of postmaster.pid names it.
func removeSharedMemory(data string) {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return // shut down properly
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 7 {
		return
	}
	if f := strings.Fields(lines[6]); len(f) == 2 {
		_ = exec.Command("ipcrm", "-m", f[1]).Run() // at worst 56 bytes are left
	}
}
