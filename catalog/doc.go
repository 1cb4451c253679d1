// Package catalog keeps the list of tenants in the main database, and does what
// has to be done to them: create, suspend, rename, move, dump, restore and
// remove. docs/lifecycle.md has the whole story, examples/lifecycle runs it.
//
//	cat, err := catalog.New(db, catalog.Config{
//		Servers:  map[string]catalog.Server{"db1": server}, // tenancypg.NewServer, tenancysqlite.NewServer
//		Migrator: migrate.Func(1, schema),
//	})
//	...
//	err = cat.Migrate(ctx)
//	...
//	err = db.Use(tenancy.New(tenancy.Config{Resolver: cat, Engine: tenancypg.Engine{}}))
//	...
//	acme, err := cat.Create(ctx, "acme", catalog.CreateOptions{})
//
// A [Catalog] is a tenancy.Resolver and a tenancy.Watcher. Each operation is a
// task of several steps, each of which can be done again: what failed, or was
// left by a process that died, is finished by the same call, or by
// [Catalog.Resume], in any process. [Catalog.Run] does so in the background.
//
// A [Server] is a place with databases. This package knows no driver: packages
// tenancypg and tenancysqlite do.
package catalog
