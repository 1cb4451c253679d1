package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gorm.io/gorm"

	"github.com/gorm-tenancy/tenancy/catalog"
)

// Options is what [New] needs. Open is required.
type Options struct {
	// Name is what the command is called. Defaults to "tenancy".
	Name string
	// Version is what the command version prints. Defaults to the version of
	// the main module that the Go tool has noted in the program.
	Version string
	// Open opens the application, once for each run of a command that needs
	// it. The flags that Flags has added are parsed then. Its errors are
	// printed, so they must hold no password.
	Open func(ctx context.Context) (*App, error)
	// Flags adds flags that all commands have. Defaults to none.
	Flags func(*pflag.FlagSet)
	// Aliases are other names of commands, by their names. Defaults to none.
	Aliases map[string][]string
	// Reset, if set, adds the command reset, which drops all tenants and makes
	// them anew: for development. Reset is called when no tenant is left, to
	// drop the application's own tables in the main database; the catalog's
	// stay. Defaults to nil: there is no such command.
	Reset func(ctx context.Context, app *App) error
}

// App is an application as a command needs it.
type App struct {
	// DB is open on the main database, with the plugin in use. Required.
	DB *gorm.DB
	// Catalog is the plugin's Resolver. Required.
	Catalog *catalog.Catalog
	// Servers tells the command doctor how to look at the servers themselves,
	// by the names of catalog.Config.Servers. Those that are missing are looked
	// at by the catalog only.
	Servers map[string]Access
	// Close is called at the end of the run. May be nil.
	Close func() error
}

// Access is how doctor looks at one server.
type Access struct {
	// Admin is the administrator's DSN of a PostgreSQL server. It is never
	// printed.
	Admin string
	// BinDir is where pg_dump is; see tenancypg.ServerConfig.
	BinDir string
}

// New returns the command. Run it by [Execute].
func New(opts Options) *cobra.Command {
	if opts.Name == "" {
		opts.Name = "tenancy"
	}
	if opts.Open == nil {
		opts.Open = func(context.Context) (*App, error) { return nil, errors.New("cli: Options.Open is not set") }
	}
	root := &cobra.Command{
		Use:   opts.Name,
		Short: "administers tenants' databases",
		Long: "Administers tenants' databases: each tenant has one of its own.\n\n" +
			"Data goes to stdout, all else to stderr. Exit codes: 0 done, 1 an error,\n" +
			"2 done in part, 3 the migration run is halted.",
		// Errors are printed by Execute, in one line. Whoever mistyped a flag
		// is told where the usage is.
		SilenceErrors: true,
		SilenceUsage:  true,
		// No Args: so cobra suggests the command that was meant.
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, err) })
	// Otherwise cobra looks for the command's name before it knows --help, and
	// takes what follows for its value.
	root.InitDefaultHelpFlag()
	root.PersistentFlags().Bool(flagJSON, false, "print JSON")
	if opts.Flags != nil {
		opts.Flags(root.PersistentFlags())
	}
	b := builder{opts}
	for _, group := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"tenants", "Tenants:", []*cobra.Command{b.create(), b.adopt(), b.list(), b.show(), b.suspend(), b.resume(),
			b.rename(), b.move(), b.remove(), b.dump(), b.restore(), b.exec()}},
		{"schema", "Migrations:", []*cobra.Command{b.migrate(), b.status(), b.verify(), b.halt(), b.retry()}},
		{"servers", "Servers:", []*cobra.Command{b.doctor(), b.template(), b.ready()}},
		{"more", "More:", []*cobra.Command{b.version()}},
	} {
		if group.id == "schema" && opts.Reset != nil {
			group.commands = append(group.commands, b.reset())
		}
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, c := range group.commands {
			c.GroupID = group.id
			c.Aliases = slices.Concat(c.Aliases, opts.Aliases[c.Name()])
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	return root
}

// builder makes the commands.
type builder struct{ opts Options }
