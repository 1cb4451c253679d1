package cli

import (
	"context"
	"errors"
	"sync"
)

// errInterrupted is why the ctx of a command ended.
var errInterrupted = errors.New("interrupted")

// interrupts is what a signal does.
type interrupts struct {
	cancel func() // of the command's ctx

	mu   sync.Mutex // guards soft
	soft func()     // what the next signal does instead
}

type interruptsKey struct{}

func (in *interrupts) signal() {
	in.mu.Lock()
	soft := in.soft
	in.soft = nil
	in.mu.Unlock()
	if soft != nil {
		soft()
		return
	}
	in.cancel()
}

// onInterrupt makes the next signal call soft, once, until end is called.
// Without [Execute] nobody listens to signals.
func onInterrupt(ctx context.Context, soft func()) (end func()) {
	in, ok := ctx.Value(interruptsKey{}).(*interrupts)
	if !ok {
		return func() {}
	}
	set := func(fn func()) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.soft = fn
	}
	set(soft)
	return func() { set(nil) }
}
