// Package tenancytest gives the tests of an application that uses tenancy
// databases of their own: the main one and those of tenants, with the
// application's own migrations, on real SQLite or PostgreSQL.
//
//	var kit = tenancytest.New(tenancytest.Config{
//		Backend:    testsqlite.Backend{}, // or testpg.Backend{}
//		Migrator:   tenancytest.AutoMigrate(&Order{}),
//		MainModels: []any{&Plan{}},
//	})
//
//	func TestMain(m *testing.M) { os.Exit(kit.Run(m)) }
//
//	func TestOrders(t *testing.T) {
//		t.Parallel()
//		env := kit.Env(t)
//		ctx := env.Tenant("acme")
//		err := env.DB.WithContext(ctx).Create(&Order{}).Error
//		...
//	}
//
// Migrations run once, in a template. What a test gets is a copy of it, or a
// sandbox: a database that several tests use one after the other, each in a
// transaction that is rolled back at its end. Tests may run in parallel, and
// never wait for one another: when no sandbox is free, another one is made.
//
// # Sandboxes
//
// [Env.Tenant] and the main database of [Env.DB] are sandboxes on PostgreSQL
// and copies on SQLite, where copying a file costs no more. In a sandbox a
// failed statement spoils nothing, and transactions, nested ones too, work as
// in production; but all of a tenant's connections are one, and take turns:
//
//   - Statements of one tenant never run at the same time. Code that needs a
//     second connection while it is in a transaction waits for itself, and gets
//     an error after 5 seconds.
//   - They are one session: advisory locks and locks of rows never keep one
//     another out, and what is SET holds for all.
//   - now() stands still, isolation levels have no effect, and no LISTEN hears
//     anything.
//   - CREATE INDEX CONCURRENTLY, VACUUM and the like fail.
//   - Sequences are not rolled back: don't expect that ids start at 1.
//
// A test of such things wants [Env.Clone] and [CloneMain]: databases of its own.
//
// Every database says of itself whose it is ([tenancy.Identity]), and every
// connection is asked: a mix-up is [tenancy.ErrWrongDatabase].
//
// # The end of a test
//
// The test's cleanup closes the plugin and takes the databases back. A
// statement that a forgotten goroutine runs after that fails, and the error
// names the test. A transaction that is still open is undone; in a sandbox it
// fails the test, whose log says where it began.
//
// The database of a failed test is kept, and the test's log says how to connect
// to it. Of a sandbox nothing can be kept: run the test again with
// TENANCY_TEST_KEEP=1, which makes every sandbox a copy. What is kept stays
// until the next run of the same package's tests, one day at most.
//
// # Isolation
//
// [RequireIsolated] calls a function or a route of the application as two
// tenants, in turn and at once, and fails if anything passes from one to the other.
//
// # Templates
//
// A template is made once, and used by all packages and all later runs whose
// fingerprint is the same ([Config.Fingerprint], [AutoMigrate]). A
// [migrate.Migrator] alone can't promise that: migrate.Func, and Go functions
// of any tool, can be changed while the version stays. Without a fingerprint
// the template is made anew for each run. A template that was not used for a
// week is dropped.
//
// # What is left behind
//
// [Kit.Run] drops what the run has made. Without TestMain, and after a run that
// was killed, the next run on the same server, or in the same directory, does:
// each run holds a lock that goes with its process.
package tenancytest
