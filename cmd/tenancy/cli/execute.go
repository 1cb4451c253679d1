package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// The exit codes.
const (
	exitDone    = 0
	exitError   = 1
	exitPartial = 2 // some tenants failed or are left, something was found
	exitHalted  = 3 // the migration run is halted
)

// exitCode is an error that was told already, and only has a code.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Execute runs cmd with the arguments of the process, and returns its exit
// code. The first SIGINT or SIGTERM ends what runs: a migration run in good
// order, all else by its ctx. The second one ends a migration run by its ctx
// too, and the next one the process.
func Execute(ctx context.Context, cmd *cobra.Command) int {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	in := &interrupts{cancel: func() {
		cancel(errInterrupted)
		signal.Stop(signals)
	}}
	go func() {
		for {
			select {
			case <-signals:
				in.signal()
			case <-ctx.Done():
				return
			}
		}
	}()
	err := cmd.ExecuteContext(context.WithValue(ctx, interruptsKey{}, in))
	var code exitCode
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.Name(), oneLine(cmd.Name(), err))
	return exitError
}

// usageError says how a command is called instead.
func usageError(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())
}

// oneLine is an error for people at a shell.
func oneLine(name string, err error) string {
	if errors.Is(err, catalog.ErrNotMigrated) {
		return "the catalog's tables are missing or out of date; run `" + name + " migrate`"
	}
	text := strings.TrimPrefix(err.Error(), "tenancy: ")
	if before, suggested, ok := strings.Cut(text, "\n\nDid you mean this?\n"); ok { // cobra's
		return before + "; did you mean " + strings.Join(strings.Fields(suggested), " or ") + "?"
	}
	text, _, _ = strings.Cut(text, "\ngoroutine ") // the stack of a hook's panic
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return printable(inCommands(name, strings.Join(lines, "; ")))
}

// inCommands says the library's next step in the words of the command: who is
// at a shell calls no Go.
func inCommands(name, text string) string {
	say := func(command string) string { return "run `" + name + " " + command + "`" }
	return strings.NewReplacer(
		"call Catalog.Migrate once", say("migrate"),
		"call Unsuspend to serve it again", say("resume ID")+" to serve it again",
		"call Resume to serve it again", say("resume")+" to serve it again",
		"; call Resume, or Remove", "; "+say("resume")+", or remove it",
		"call Resume first", say("resume")+" first",
		"call Resume", say("resume"),
		"use Move", say("move"),
		"Rename or Remove it, or restore under another id", "rename or remove it, restore under another id, or say --replace",
		"set Force if that one is gone", "say --force if that one is gone",
		"call Restore again with the dump from its beginning", "restore again with the dump from its beginning",
	).Replace(text)
}

func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usageError(cmd, err)
	}
	return nil
}

// someArgs is cobra's RangeArgs, in words that name what is missing.
func someArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		_, names, _ := strings.Cut(cmd.Use, " ")
		return usageError(cmd, fmt.Errorf("%s wants %s, and got %d arguments", cmd.Name(), names, len(args)))
	}
}
