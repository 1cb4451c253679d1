// Package migrate brings the schemas of a fleet of databases forward.
// docs/migrations.md has the whole story.
//
// A [Migrator] knows what is to be done in one database: contrib/goose and
// contrib/gormigrate have one, [Func] is the simplest. [Run] has it done in all
// tenants' databases of a [Source], bounded on each server, past those that
// fail, and returns a [Report]. The catalog is such a Source, whose runs any
// number of processes share:
//
//	report, err := cat.MigrateAll(ctx, migrate.Options{})
//
// [List] is one for any other list of tenants, [Main] for the main database, and
// [Verify] finds drift.
package migrate
