// Command tenancy administers tenants' databases: see docs/cli.md. Its
// migrations are SQL files in directories; an application that has others makes
// a command of its own by package cli.
package main

import (
	"context"
	"os"

	"github.com/spf13/pflag"

	"github.com/gorm-tenancy/tenancy/cmd/tenancy/cli"
	"github.com/gorm-tenancy/tenancy/cmd/tenancy/internal/config"
	"github.com/gorm-tenancy/tenancy/cmd/tenancy/internal/stock"
)

func main() { os.Exit(run()) }

func run() int {
	var flags *pflag.FlagSet
	cmd := cli.New(cli.Options{
		Flags: func(f *pflag.FlagSet) {
			flags = f
			config.AddFlags(f)
		},
		Open: func(ctx context.Context) (*cli.App, error) {
			cfg, err := config.Load(config.FromProcess(flags))
			if err != nil {
				return nil, err
			}
			return stock.Open(ctx, cfg)
		},
	})
	return cli.Execute(context.Background(), cmd)
}
