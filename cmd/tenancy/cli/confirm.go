package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

const flagForce = "force"

func forceFlag(cmd *cobra.Command, force *bool) {
	cmd.Flags().BoolVar(force, flagForce, false, "don't ask")
}

// confirm has want typed before something that can't be taken back. What is
// asked must be seen and answered by a person: it is refused where stdin or
// stderr is no terminal.
func (r *run) confirm(force bool, what, want string) error {
	if force {
		return nil
	}
	if !isTerminal(r.in) || !isTerminal(r.err.w) {
		return fmt.Errorf("%s; there is no terminal to ask on, so say --%s if you mean it", what, flagForce)
	}
	r.err.mu.Lock()
	fmt.Fprintf(r.err.w, "%s\nType %s to go on: ", what, want)
	r.err.mu.Unlock()
	answer, err := r.line()
	switch {
	case errors.Is(err, io.EOF):
		r.err.sayf("")
		return errors.New("no answer; nothing was done")
	case err != nil:
		r.err.sayf("")
		return fmt.Errorf("%w; nothing was done", err)
	case answer != want:
		return fmt.Errorf("that is not %s; nothing was done", want)
	}
	return nil
}

// line reads a line that a person types. A read of a terminal can't be ended,
// so when the ctx ends it is left behind: the process is about to end too.
func (r *run) line() (string, error) {
	type answer struct {
		text string
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		text, err := bufio.NewReader(r.in).ReadString('\n')
		typed <- answer{text, err}
	}()
	select {
	case a := <-typed:
		return strings.TrimSpace(a.text), a.err
	case <-r.ctx.Done():
		return "", context.Cause(r.ctx)
	}
}
