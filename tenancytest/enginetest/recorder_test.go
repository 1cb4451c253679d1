package enginetest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// recorder is a test that may fail. What it is not asked for here is the real
// test's.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	said     []string
	logged   []string
	cleanups []func()
}

// record runs a check to its end, clean-up included, and returns what it said.
func record(tb testing.TB, check func(testing.TB)) *recorder {
	r := &recorder{TB: tb}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.clean()
		check(r)
	}()
	<-done
	return r
}

func (r *recorder) clean() {
	for len(r.cleanups) > 0 {
		last := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		last()
	}
}

func (r *recorder) failure() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.said, "\n")
}

func (r *recorder) note(to *[]string, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*to = append(*to, text)
}

func (r *recorder) Helper()                   {}
func (r *recorder) Logf(f string, a ...any)   { r.note(&r.logged, fmt.Sprintf(f, a...)) }
func (r *recorder) Error(a ...any)            { r.note(&r.said, fmt.Sprint(a...)) }
func (r *recorder) Errorf(f string, a ...any) { r.note(&r.said, fmt.Sprintf(f, a...)) }
func (r *recorder) Failed() bool              { return r.failure() != "" }
func (r *recorder) Fail()                     { r.Errorf("Fail") }
func (r *recorder) FailNow()                  { r.Errorf("FailNow"); runtime.Goexit() }
func (r *recorder) Fatal(a ...any)            { r.Error(a...); runtime.Goexit() }
func (r *recorder) Fatalf(f string, a ...any) { r.Errorf(f, a...); runtime.Goexit() }

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}
