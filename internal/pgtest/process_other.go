//go:build !unix

package pgtest

import (
	"errors"
	"os/exec"
)

// Elsewhere there are no private clusters: tests run against [EnvDSN].

type signal int

const (
	sigFast signal = iota
	sigImmediate
	sigTerm
	sigKill
)

type credential struct{}

func serverUser() (*credential, error) {
	return nil, errors.New("private clusters need a Unix system; set " + EnvDSN)
}

func (c *credential) String() string       { return "" }
func (c *credential) own(string) error     { return nil }
func (c *credential) apply(*exec.Cmd)      {}
func limitFiles(*exec.Cmd, int64)          {}
func send(int, signal)                     {}
func reap(int) bool                        { return true }
func freezeTree(int) ([]int, error)        { return nil, errors.ErrUnsupported }
func thaw([]int)                           {}
func killTree(pid int, exited func() bool) {}
func removeSharedMemory(string)            {}
