package tenancygoose_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/stretchr/testify/require"

	tenancygoose "github.com/gorm-tenancy/tenancy/contrib/goose"
	"github.com/gorm-tenancy/tenancy/internal/migratortest"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
)

// What goose does that hurts when there is a database per tenant, one test for
// each.

// A SessionLocker that tenants share has one budget of retries for all of them,
// for ever. With any, Up would wait here, since its lock is taken.
func TestTrapSharedSessionLocker(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	m := newMigrator(t, tenancygoose.Config{Dialect: goose.DialectPostgres, FS: three()})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 2 {
		name := pg.CreateDatabase(t)
		_, err := pg.Conn(t, name).Exec(ctx, "SELECT pg_advisory_lock($1)", lock.DefaultLockID)
		require.NoError(t, err)
		db, err := sql.Open("pgx", pg.DSN(name))
		require.NoError(t, err)
		defer db.Close()
		applied, err := m.Up(ctx, db, 3)
		require.NoError(t, err)
		require.Len(t, applied, 3)
	}
}

// goose's locker polls. Callers who queue for a lock of their own go one after
// the other, and all but the first find nothing to do.
func TestTrapLockerThatPolls(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	m := newMigrator(t, tenancygoose.Config{Dialect: goose.DialectPostgres, FS: three()})
	dsn := pg.DSN(pg.CreateDatabase(t))
	applied := make([]int, 4)
	errs := make([]error, len(applied))
	var wg sync.WaitGroup
	for i := range applied {
		wg.Go(func() {
			errs[i] = func() error {
				db, err := sql.Open("pgx", dsn)
				if err != nil {
					return err
				}
				defer db.Close()
				conn, err := db.Conn(t.Context())
				if err != nil {
					return err
				}
				defer conn.Close()
				if _, err := conn.ExecContext(t.Context(), "SELECT pg_advisory_lock(1)"); err != nil {
					return err
				}
				done, err := m.Up(t.Context(), db, 3)
				applied[i] = len(done)
				return err
			}()
		})
	}
	wg.Wait()
	total := 0
	for i := range applied {
		require.NoError(t, errs[i])
		total += applied[i]
	}
	require.Equal(t, 3, total)
}

// A Provider that failed to make its table takes it for made afterwards. And it
// tries four times, with a second between.
func TestTrapPoisonedProvider(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		s := &migratortest.Spy{Connector: e.Connector(t)}
		db := migratortest.Pool(t, s)
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: three()})
		migratortest.Exec(t, db, "CREATE TABLE t (id integer)")
		migratortest.Exec(t, db, "CREATE INDEX goose_db_version ON t (id)") // the name is taken
		s.Take()
		_, err := m.Up(t.Context(), db, 3)
		require.ErrorContains(t, err, "goose_db_version")
		require.LessOrEqual(t, len(s.Take()), 3, "tried once")

		migratortest.Exec(t, db, "DROP INDEX goose_db_version")
		applied, err := m.Up(t.Context(), db, 3)
		require.NoError(t, err)
		require.Len(t, applied, 3)
	})
}

// Status asks for each migration, and nothing can be asked without making the
// table.
func TestTrapStatusThatWrites(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		fsys := fstest.MapFS{}
		for i := range 30 {
			name := fmt.Sprintf("%05d_t.sql", i+1)
			fsys[name] = sqlFiles(name, fmt.Sprintf("CREATE TABLE t%d (id integer)", i))[name]
		}
		s := &migratortest.Spy{Connector: e.Connector(t)}
		db := migratortest.Pool(t, s)
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: fsys})
		require.Zero(t, migratortest.Current(t, m, db))
		require.LessOrEqual(t, len(s.Take()), 2)
		tables := "SELECT count(*) FROM sqlite_master"
		if e.Postgres {
			tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
		}
		require.Zero(t, migratortest.Count(t, db, tables))

		_, err := m.Up(t.Context(), db, 30)
		require.NoError(t, err)
		s.Take()
		require.EqualValues(t, 30, migratortest.Current(t, m, db))
		require.LessOrEqual(t, len(s.Take()), 2)
		_, err = m.Up(t.Context(), db, 30)
		require.NoError(t, err)
		require.LessOrEqual(t, len(s.Take()), 2, "with nothing to do, Up is as cheap as Current")
	})
}

// See TestMain: what is in the registry has a version of ours, and another.
func TestTrapGlobalRegistry(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: three()})
		target, _ := m.Target()
		require.EqualValues(t, 3, target)
		_, err := m.Up(t.Context(), e.Open(t), target)
		require.NoError(t, err)
	})
}

// A function without a transaction gets the pool, of which goose keeps one
// connection.
func TestTrapSecondConnection(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		outside := goose.NewGoMigration(4, &goose.GoFunc{RunDB: func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, "INSERT INTO users VALUES (2, 'b@example.com')")
			return err
		}}, nil)
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: three(), Go: []*goose.Migration{outside}})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()

		db := e.Open(t)
		db.SetMaxOpenConns(1)
		_, err := m.Up(ctx, db, 4)
		require.ErrorContains(t, err, "SetMaxOpenConns(2)")
		require.Zero(t, migratortest.Current(t, m, db), "nothing was applied")
		_, err = m.Up(ctx, db, 3)
		require.NoError(t, err, "the others need one connection")

		db.SetMaxOpenConns(2)
		_, err = m.Up(ctx, db, 4)
		require.NoError(t, err)
		require.Equal(t, 2, migratortest.Count(t, db, "SELECT count(*) FROM users"))
		require.EqualValues(t, 4, migratortest.Current(t, m, db))
	})
}

func TestTrapNewerDatabase(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		db := e.Open(t)
		_, err := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: three()}).Up(t.Context(), db, 3)
		require.NoError(t, err)
		older := three()
		delete(older, "00003_first.sql")
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: older})
		require.EqualValues(t, 3, migratortest.Current(t, m, db))
		for _, to := range []int64{1, 2} {
			_, err = m.Up(t.Context(), db, to)
			require.ErrorIs(t, err, tenancygoose.ErrNewer)
			require.ErrorContains(t, err, "it is at 3, and the newest here is 2")
		}
	})
}

// goose writes the name of a Go file to the migration, which is everybody's:
// for the race detector.
func TestTrapSharedGoMigration(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		fsys := three()
		fsys["00004_go.go"] = &fstest.MapFile{Data: []byte("package x\n")}
		add := goose.NewGoMigration(4, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO users VALUES (2, 'b@example.com')")
			return err
		}}, nil)
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: fsys, Go: []*goose.Migration{add}})
		var wg sync.WaitGroup
		for range 5 {
			db := e.Open(t)
			wg.Go(func() {
				if _, err := m.Up(t.Context(), db, 4); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// A file that changes between New and Up would run under a fingerprint that
// doesn't stand for it.
func TestTrapFilesThatChange(t *testing.T) {
	migratortest.Each(t, func(t *testing.T, e migratortest.Engine) {
		fsys := three()
		m := newMigrator(t, tenancygoose.Config{Dialect: dialect(e), FS: fs.FS(fsys)})
		for _, f := range fsys {
			f.Data = []byte("no SQL at all")
		}
		_, err := m.Up(t.Context(), e.Open(t), 3)
		require.NoError(t, err)
	})
}
