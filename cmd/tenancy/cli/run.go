package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gorm-tenancy/tenancy/catalog"
)

const flagJSON = "json"

// run is one run of a command.
type run struct {
	ctx  context.Context //nolint:containedctx // it lives as long as the command
	opts Options
	app  *App
	cat  *catalog.Catalog
	json bool
	in   io.Reader
	out  io.Writer // data
	err  *talk     // all else
}

// do is a command's RunE: it opens the application, and closes it.
func (b builder) do(fn func(r *run, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) (err error) {
		r := b.run(cmd)
		if r.app, err = b.opts.Open(r.ctx); err != nil {
			return err
		}
		r.cat = r.app.Catalog
		if r.app.Close != nil {
			defer func() {
				if closing := r.app.Close(); err == nil && closing != nil {
					err = closing
				}
			}()
		}
		return fn(r, args)
	}
}

func (b builder) run(cmd *cobra.Command) *run {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	asJSON, _ := cmd.Flags().GetBool(flagJSON) // every command has it
	return &run{ctx: ctx, opts: b.opts, json: asJSON, in: cmd.InOrStdin(), out: cmd.OutOrStdout(), err: &talk{w: cmd.ErrOrStderr()}}
}

// talk is stderr. What is said while a bar is drawn goes above it.
type talk struct {
	mu     sync.Mutex // guards the rest, and the order of lines
	w      io.Writer
	hide   func() // takes what is drawn away, and
	redraw func() // draws it again; nil if nothing is
}

// sayf prints one line.
func (t *talk) sayf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hide != nil {
		t.hide()
		defer t.redraw()
	}
	fmt.Fprintf(t.w, format+"\n", args...)
}

// isTerminal reports whether a stream is one that a person sits at.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printJSON prints v, indented: who wants one line pipes it through jq -c.
func (r *run) printJSON(v any) error {
	e := json.NewEncoder(r.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printTenant prints what became of a tenant.
func (r *run) printTenant(t catalog.Tenant) error {
	if r.json {
		return r.printJSON(t)
	}
	_, err := fmt.Fprintln(r.out, sentence(t))
	return err
}

// sentence says where a tenant is.
func sentence(t catalog.Tenant) string {
	text := fmt.Sprintf("%s is %s on %s, at version %d", nameOf(t), t.State, t.Server, t.Version)
	if t.Reason != "" && t.State == catalog.Suspended {
		text += ": " + t.Reason
	}
	if t.Task != "" {
		text += fmt.Sprintf("; its %s is unfinished", t.Task)
	}
	return printable(text)
}

// nameOf is what a tenant is called in tables.
func nameOf(t catalog.Tenant) string {
	if t.ID == "" {
		return "(" + t.Database + ")"
	}
	return t.ID
}

// cause is the ctx's own error if that is why err came: nobody wants to read
// what a driver says of a cancelled ctx.
func (r *run) cause(err error) error {
	if err != nil && r.ctx.Err() != nil && errors.Is(context.Cause(r.ctx), errInterrupted) {
		return errInterrupted
	}
	return err
}
