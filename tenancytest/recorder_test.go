package tenancytest_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// recorder is a TB of a test that may fail or be skipped.
type recorder struct {
	name string

	mu       sync.Mutex
	log      []string
	failed   bool
	skipped  bool
	cleanups []func()
}

// record runs f as a test of the name, with its cleanups.
func record(name string, f func(r *recorder)) *recorder {
	r := &recorder{name: name}
	run := func(f func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			f()
		}()
		<-done
	}
	run(func() { f(r) })
	for len(r.cleanups) > 0 {
		last := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		run(last)
	}
	return r
}

func (r *recorder) Helper()          {}
func (r *recorder) Name() string     { return r.name }
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *recorder) Errorf(format string, args ...any) {
	r.Logf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.Logf(format, args...)
	r.skipped = true
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) said() string { return strings.Join(r.log, "\n") }

// passes fails t unless r passed.
func (r *recorder) passes(t *testing.T) {
	t.Helper()
	if r.failed || r.skipped {
		t.Errorf("%s: failed %v, skipped %v: %s", r.name, r.failed, r.skipped, r.said())
	}
}
