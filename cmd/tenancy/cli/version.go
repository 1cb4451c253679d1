package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (b builder) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := b.run(cmd)
			version := b.opts.Version
			if info, ok := debug.ReadBuildInfo(); ok && version == "" {
				version = info.Main.Version
			}
			if version == "" {
				version = "(devel)"
			}
			if r.json {
				return r.printJSON(map[string]string{"name": b.opts.Name, "version": version, "go": runtime.Version()})
			}
			_, err := fmt.Fprintf(r.out, "%s %s (%s)\n", b.opts.Name, version, runtime.Version())
			return err
		},
	}
}
