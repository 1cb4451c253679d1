package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
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
	text := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "tenancy: "), ": tenancy: ", ": ")
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

// method is one of the library's, in its advice.
var method = regexp.MustCompile(`\b(Catalog\.Migrate once|FillReady|Suspend|Unsuspend|Rename|Move|Adopt|Restore|Remove|Resume)\b`)

// commandOf are the methods whose command has another name.
var commandOf = map[string]string{"Catalog.Migrate once": "migrate", "FillReady": "ready", "Unsuspend": "resume ID"}

// inCommands says the library's advice, which follows a semicolon, in the words
// of the command: who is at a shell calls no Go.
func inCommands(name, text string) string {
	parts := strings.Split(text, "; ")
	for i, part := range parts {
		rest, calls := strings.CutPrefix(part, "call ")
		if i == 0 || !calls && !strings.HasPrefix(part, "use ") {
			continue
		}
		rest = method.ReplaceAllStringFunc(rest, func(m string) string {
			command, ok := commandOf[m]
			if !ok {
				command = strings.ToLower(m)
			}
			return "`" + name + " " + command + "`"
		})
		if calls {
			rest = "run " + rest
		}
		parts[i] = rest
	}
	return strings.NewReplacer(
		"Rename or Remove it, or restore under another id", "rename or remove it, restore under another id, or say --replace",
		"set Force if that one is gone", "say --force if that one is gone",
		"or Remove the tenant with Forget", "or remove the tenant with --forget",
		"Config.Servers has no", "the configuration has no server",
		"Config.Migrator is not set", "no migrations are configured",
		"Config.MainMigrator is not set", "no migrations of the main database are configured",
		"AdoptOptions.Server and Database are required", "say --server",
	).Replace(strings.Join(parts, "; "))
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
