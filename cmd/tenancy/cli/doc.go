// Package cli makes an operator's command of a catalog: create, list, migrate,
// exec, doctor and the rest.
//
// Command tenancy is the stock one, for SQL migrations in directories. An
// application whose migrations, seeds or models are Go makes its own:
//
//	func main() {
//		cmd := cli.New(cli.Options{Name: "shop", Open: open})
//		os.Exit(cli.Execute(context.Background(), cmd))
//	}
//
// where open is what the application does at its start. docs/cli.md has the
// commands and their exit codes.
package cli
