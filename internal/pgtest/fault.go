package pgtest

import (
	"errors"
	"os"
	"time"
)

// Kill ends the server as a power failure would: the postmaster and all its
// backends get SIGKILL, and are gone when Kill returns. Dials are then
// refused.
func (c *Cluster) Kill() {
	c.mine("Kill")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killLocked()
}

// Freeze stops the postmaster and all its backends (SIGSTOP) without ending
// them. To a client the server hangs: the kernel still accepts connections, and
// nothing ever answers. [Cluster.Thaw] ends it.
func (c *Cluster) Freeze() {
	c.tb.Helper()
	c.mine("Freeze")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exitedLocked() {
		c.tb.Fatalf("pgtest: Freeze of a server that does not run")
		return
	}
	frozen, err := freezeTree(c.pid)
	c.frozen = frozen
	c.guard.watch(c.pid, frozen...)
	if err != nil {
		c.tb.Fatalf("pgtest: Freeze: %v", err)
	}
}

// Thaw lets a frozen server go on. It does nothing to one that isn't frozen.
func (c *Cluster) Thaw() {
	c.mine("Thaw")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.thawLocked()
}

// Stop shuts the server down in PostgreSQL's "fast" way: sessions are told, the
// data is written. It does nothing to one that doesn't run.
func (c *Cluster) Stop() {
	c.mine("Stop")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked(sigFast)
}

// Restart starts the server again, on the same port and with the same data,
// after [Cluster.Kill] or [Cluster.Stop]. One that still runs is stopped first.
// It returns when the server answers.
func (c *Cluster) Restart() {
	c.tb.Helper()
	c.mine("Restart")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked(sigFast)
	deadline := time.Now().Add(stopTimeout)
	for {
		err := c.startLocked()
		if err == nil {
			return
		}
		if !errors.Is(err, errPortTaken) || time.Now().After(deadline) {
			c.tb.Fatalf("pgtest: Restart: %v", err)
			return
		}
		time.Sleep(poll)
	}
}

// mine panics unless the cluster belongs to one test: breaking another one
// would fail tests that have nothing to do with it.
func (c *Cluster) mine(method string) {
	if c.tb == nil {
		panic("pgtest: " + method + " of a shared server: use Start")
	}
}

// usable reports whether the server runs and can answer.
func (c *Cluster) usable() bool {
	if c.external != nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.exitedLocked() && len(c.frozen) == 0
}

func (c *Cluster) thawLocked() {
	if len(c.frozen) > 0 {
		thaw(c.frozen)
		c.frozen = nil
		c.guard.watch(c.pid)
	}
}

func (c *Cluster) killLocked() {
	if c.exitedLocked() {
		return
	}
	killTree(c.pid, c.exitedLocked)
	c.frozen = nil
}

// stopLocked sends sig to the postmaster and waits for its end, or forces it.
func (c *Cluster) stopLocked(sig signal) {
	if c.exitedLocked() {
		return
	}
	send(c.pid, sig)
	c.thawLocked()
	for deadline := time.Now().Add(stopTimeout); !c.exitedLocked(); time.Sleep(poll) {
		if time.Now().After(deadline) {
			c.killLocked()
			return
		}
	}
}

// exitedLocked reports whether there is no postmaster (any more). It is the
// only one that waits for the process, so c.pid can't be another's.
func (c *Cluster) exitedLocked() bool {
	if c.pid == 0 {
		return true
	}
	if !reap(c.pid) {
		return false
	}
	c.pid, c.frozen = 0, nil
	c.guard.watch(0)
	return true
}

// remove ends the cluster for good.
func (c *Cluster) remove() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked(sigImmediate)
	removeSharedMemory(c.data())
	_ = os.RemoveAll(c.dir)
	c.guard.dismiss()
}
