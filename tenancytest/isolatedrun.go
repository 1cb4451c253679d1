package tenancytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// runKey is the key of a *run in a context.
type runKey struct{}

// run is one call of a handler. It may be paused at one of its steps: a statement
// that is about to run, or something that is about to be written.
type run struct {
	tenant string
	as     string // in words
	out    lockedBuffer
	err    error // written before done is closed

	mu      sync.Mutex
	steps   int
	pauseAt int           // 0 for never
	paused  chan struct{} // closed at that step
	resume  chan struct{} // ends the pause
	done    chan struct{} // closed when the handler has returned
}

func newRun(tenant, as string) *run {
	return &run{tenant: tenant, as: as, paused: make(chan struct{}), resume: make(chan struct{}), done: make(chan struct{})}
}

func (r *run) step() {
	r.mu.Lock()
	r.steps++
	here := r.steps == r.pauseAt
	r.mu.Unlock()
	if here {
		close(r.paused)
		<-r.resume
	}
}

// Write is what the handler writes to.
func (r *run) Write(p []byte) (int, error) {
	r.step()
	return r.out.Write(p)
}

// call calls the handler.
func (r *run) call(ctx context.Context, handler func(context.Context, io.Writer) error) {
	returned := false
	defer close(r.done)
	defer func() {
		if p := recover(); p != nil {
			r.err = fmt.Errorf("the handler panicked: %v", p)
		} else if !returned { // t.FailNow, for instance
			r.err = errors.New("the handler ended its goroutine")
		}
	}()
	r.err = handler(context.WithValue(ctx, runKey{}, r), r)
	returned = true
}

// said is what the handler wrote, and its error.
func (r *run) said() string {
	text := r.out.String()
	if r.err != nil {
		text += "\n" + r.err.Error()
	}
	return text
}

// lockedBuffer is for handlers that write from several goroutines.
type lockedBuffer struct {
	mu   sync.Mutex
	data []byte
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.data)
}
