// Package tenancy gives each tenant of a GORM application a database of its own.
//
// It is a GORM plugin. The application keeps one *gorm.DB, opened on the main
// database. The tenant's id travels in the [context.Context]; a statement runs
// in the database of the tenant in its context, or is refused.
//
//	db, err := gorm.Open(postgres.Open(mainDSN), &gorm.Config{})
//	...
//	plugin := tenancy.New(tenancy.Config{
//		Resolver:   tenancy.Static{"acme": {DSN: acmeDSN}, "bravo": {DSN: bravoDSN}},
//		Engine:     tenancypg.Engine{},
//		MainModels: []any{&Plan{}},
//	})
//	err = db.Use(plugin)
//	...
//	ctx = tenant.Ctx(ctx, "acme")               // what middleware does
//	db.WithContext(ctx).Find(&orders)           // acme's orders
//	gorm.G[Order](db).Find(ctx)                 // the same
//	db.WithContext(ctx).Find(&plans)            // a main model: the main database
//	db.WithContext(context.Background()).Find(&orders) // ErrNoTenant, nothing is sent
//
// # Which database
//
// The context decides: [tenant.Ctx] and [tenant.Pin] name a tenant,
// [tenant.Main] means the main database. Models listed in Config.MainModels
// are in the main database whatever the tenant, and need none. There is no
// default, and nothing falls back to main. Where a context can't be passed,
// [WithTenant], [Main] and [ForStatement] are scopes for one statement, [For]
// binds a *gorm.DB to a tenant, [With] runs a piece of work for one, and [Each]
// for many.
//
// # Tenants that come and go
//
// Package catalog is a [Resolver] that keeps the tenants in a table of the main
// database, and creates, suspends, renames, moves, backs up and removes them, in
// all processes. It sets [Database.Identity], by which each new connection is
// asked whose database it leads to ([ErrWrongDatabase] otherwise); other
// resolvers may too.
//
// # What is refused
//
// A statement is refused, with an error that errors.Is knows, when it has no
// tenant ([ErrNoTenant]), when it runs in another database's transaction or
// connection ([ErrTenantMismatch]), when it would write a main model in a
// tenant's transaction ([ErrMainInTenantTx]), when it needs two databases at
// once ([ErrCrossDatabase]), and when it would write a row, marked by [Stamp],
// that was loaded from another database ([ErrWrongTenant]). A transaction in
// which a statement was refused can't be committed: Commit rolls back and
// returns the refusal. docs/isolation.md has the whole list, and what no
// plugin can see.
//
// # Pools
//
// A [Resolver] says where a tenant's database is; an [Engine] (packages
// tenancypg and tenancysqlite) opens it. A tenant's pool is opened at its first
// statement, once, and retired when it has been idle, when there are more than
// Limits.MaxPools, or when the [Database] changed. Work in flight always
// finishes.
//
// All tenants of a server share a budget of connections
// (Limits.MaxConnsPerServer), which is never exceeded: idle ones of other
// tenants are closed for those who wait. Every wait is bounded and ends with
// [ErrPoolExhausted]. A server that can't be reached fails fast
// ([ErrUnavailable]) and does not concern the tenants of others.
// [Plugin.Stats] shows the pools, an [Observer] hears of events, and
// [Plugin.Close] ends all of it at shutdown.
//
// # Concurrency
//
// A [Plugin] belongs to one *gorm.DB, and may be used from any goroutine.
package tenancy
