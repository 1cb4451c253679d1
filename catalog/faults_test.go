package catalog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/internal/pgtest"
	"github.com/gorm-tenancy/tenancy/migrate"
)

// Two hundred tenants are created on two servers, and one of them dies in the
// middle: every tenant is there, and nothing else once the server is back.
func TestServerDiesWhileCreating(t *testing.T) {
	const tenants = 200
	p := newPlace(t, "postgres")
	p.Servers = map[string]target{}
	p.addServer(t, "s1")
	dying := p.addServer(t, "s2")
	pr := p.start(t, func(cfg *catalog.Config) { cfg.Creates = 8 })
	ctx := t.Context()

	ids := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	created := map[string]catalog.Tenant{}
	half := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for id := range ids {
				row, err := pr.catalog.Create(ctx, id, catalog.CreateOptions{})
				mu.Lock()
				if err != nil {
					t.Errorf("%s: %v", id, err)
				}
				created[id] = row
				if len(created) == tenants/2 {
					close(half)
				}
				mu.Unlock()
			}
		})
	}
	go func() {
		defer close(ids)
		for i := range tenants {
			ids <- fmt.Sprintf("t%d", i)
		}
	}()
	<-half
	dying.Kill()
	wg.Wait()
	require.Len(t, created, tenants)

	dying.Restart()
	r := pr.resume(t)
	require.Empty(t, r.Failed)
	on := map[string]int{}
	seen := map[string]bool{}
	for id, row := range created {
		require.Equal(t, catalog.Active, row.State, id)
		require.False(t, seen[row.Database])
		seen[row.Database] = true
		on[row.Server]++
	}
	require.NotZero(t, on["s2"])
	require.Greater(t, on["s1"], on["s2"])
	pr.inOrder(t)
	for id := range created {
		pr.write(t, id, id)
	}
	for id, row := range created {
		require.Equal(t, []string{id}, p.raw(t, row))
	}
}

// What an interrupted DROP leaves is finished by Remove, and made anew by
// Create.
func TestInterruptedDrop(t *testing.T) {
	p := newPlace(t, "postgres")
	pr := p.start(t)
	ctx := t.Context()
	pg := pgtest.Shared(t)
	invalid := func(row catalog.Tenant) {
		// What DROP DATABASE writes before it removes the files (PostgreSQL's
		// src/backend/commands/dbcommands.c, dropdb).
		pg.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+row.Database+"'")
		pg.Exec(t, "postgres", "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '"+row.Database+"'")
	}
	acme := pr.create(t, "acme")
	invalid(acme)
	audit, err := pr.catalog.Audit(ctx)
	require.NoError(t, err)
	require.Len(t, audit.Missing, 1, "it can't be used")
	_, err = pr.catalog.Remove(ctx, "acme", catalog.RemoveOptions{})
	require.NoError(t, err)
	require.Empty(t, p.there(t))

	half := p.start(t, func(cfg *catalog.Config) {
		cfg.Migrator = migrate.Func(9, func(context.Context, *sql.DB) error { return errors.New("not today") })
		cfg.NoTemplates = true
	})
	_, err = half.catalog.Create(ctx, "acme", catalog.CreateOptions{})
	require.ErrorContains(t, err, "not today")
	require.ErrorContains(t, err, "Remove to clean up")
	row, err := pr.catalog.Get(ctx, "acme")
	require.NoError(t, err)
	require.Equal(t, catalog.Provisioning, row.State)
	require.Equal(t, "migrate", row.Step)
	require.Contains(t, row.LastError, "not today")
	require.ErrorIs(t, pr.in("acme").Find(&[]Note{}).Error, tenancy.ErrTenantNotFound, "not visible")
	invalid(row)
	pr.create(t, "acme")
	pr.write(t, "acme", "new")
	pr.inOrder(t)
}

// A full disk and a refused privilege are said, and what was begun can be
// finished when they are mended.
func TestFailuresAreSaid(t *testing.T) {
	t.Run("privilege", func(t *testing.T) {
		p := newPlace(t, "postgres")
		pr := p.start(t)
		pg := pgtest.Shared(t)
		admin := strings.TrimPrefix(strings.Split(p.Servers["s1"].Admin, "@")[0], "postgres://")
		pg.Exec(t, "postgres", fmt.Sprintf("ALTER ROLE %q NOCREATEDB", admin))
		_, err := pr.catalog.Create(t.Context(), "acme", catalog.CreateOptions{})
		require.ErrorContains(t, err, "CREATEDB")
		row, err := pr.catalog.Get(t.Context(), "acme")
		require.NoError(t, err)
		require.Equal(t, "database", row.Step)
		pg.Exec(t, "postgres", fmt.Sprintf("ALTER ROLE %q CREATEDB", admin))
		r := pr.resume(t)
		require.Empty(t, r.Failed)
		pr.write(t, "acme", "x")
		pr.inOrder(t)
	})
	t.Run("disk of a PostgreSQL server", func(t *testing.T) {
		p := newPlace(t, "postgres")
		p.Backups = filepath.Join(t.TempDir(), "none")
		small := pgtest.Start(t, pgtest.FileLimit(20<<20))
		p.Servers = map[string]target{"s1": pgTarget(t, small)}
		pr := p.start(t)
		pr.create(t, "other")
		full := p.start(t, func(cfg *catalog.Config) {
			cfg.NoTemplates = true
			cfg.Migrator = migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
				_, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS notes (id bigserial PRIMARY KEY, text text NOT NULL);
					ALTER TABLE notes ALTER text SET STORAGE PLAIN;
					INSERT INTO notes (text) SELECT repeat('x', 4000) FROM generate_series(1, 6000)`)
				return err
			})
		})
		for range 2 {
			_, err := full.catalog.Create(t.Context(), "acme", catalog.CreateOptions{})
			require.ErrorContains(t, err, "File too large")
			row, err := full.catalog.Get(t.Context(), "acme")
			require.NoError(t, err)
			require.Equal(t, catalog.Provisioning, row.State)
			require.Equal(t, "migrate", row.Step)
			require.Contains(t, row.LastError, "File too large")
		}
		pr.write(t, "other", "x")
		require.Equal(t, []string{"x"}, pr.notes(t, "other"))
		require.ErrorIs(t, pr.in("acme").Find(&[]Note{}).Error, tenancy.ErrTenantNotFound)
		pr.create(t, "acme")
		pr.write(t, "acme", "y")
		pr.inOrder(t)
		for _, id := range []string{"acme", "other"} {
			_, err := pr.catalog.Remove(t.Context(), id, catalog.RemoveOptions{NoBackup: true})
			require.NoError(t, err)
		}
		require.Empty(t, p.there(t))
	})
	t.Run("disk", func(t *testing.T) {
		p := newPlace(t, "sqlite")
		full := p.start(t, func(cfg *catalog.Config) {
			cfg.NoTemplates = true
			cfg.Migrator = migrate.Func(1, func(ctx context.Context, db *sql.DB) error {
				conn, err := db.Conn(ctx)
				if err != nil {
					return err
				}
				defer conn.Close()
				for _, q := range []string{"PRAGMA max_page_count = 8", "CREATE TABLE notes (id integer PRIMARY KEY, text text NOT NULL)",
					"INSERT INTO notes (text) SELECT hex(randomblob(100000))"} {
					if _, err := conn.ExecContext(ctx, q); err != nil {
						return err
					}
				}
				return nil
			})
		})
		_, err := full.catalog.Create(t.Context(), "acme", catalog.CreateOptions{})
		require.ErrorContains(t, err, "full")
		row, err := full.catalog.Get(t.Context(), "acme")
		require.NoError(t, err)
		require.Equal(t, "migrate", row.Step)
		require.Contains(t, row.LastError, "full")
		pr := p.start(t)
		require.Empty(t, pr.resume(t).Failed)
		pr.write(t, "acme", "x")
		pr.inOrder(t)
	})
}

// A row that somebody wrote by hand leads nowhere else.
func TestHostileRows(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		victim := pr.create(t, "victim")
		pr.write(t, "victim", "secret")
		main, err := pr.db.DB()
		require.NoError(t, err)
		outside := filepath.Join(t.TempDir(), "outside.db")
		require.NoError(t, os.WriteFile(outside, nil, 0o600))
		names := []string{
			"../" + filepath.Base(filepath.Dir(p.Main)) + "/main.db", outside, "x'; DROP TABLE notes; --", `x"; DROP DATABASE postgres; --`,
			"postgres://evil/db", "host=evil dbname=x", "a?mode=memory", "a#b", "a\nb", "..", ".", strings.Repeat("n", 64),
			strings.Repeat("n", 300), victim.Database + "?x=1", "file:" + victim.Database, victim.Database + "\x00",
		}
		for i, name := range names {
			id := fmt.Sprintf("hostile%d", i)
			insert := "INSERT INTO tenancy_tenants (uid, id, state, server, dbname) VALUES (%s, %s, 'active', 's1', %s)"
			marks := []any{"$1", "$2", "$3"}
			if p.Engine == "sqlite" {
				marks = []any{"?", "?", "?"}
			}
			if _, err := main.Exec(fmt.Sprintf(insert, marks...), fmt.Sprintf("uid%d", i), id, name); err != nil {
				require.Contains(t, name, "\x00", "%v", err) // PostgreSQL stores none
				continue
			}
			require.Error(t, pr.in(id).Find(&[]Note{}).Error, "%q", name)
			require.Error(t, pr.in(id).Create(&Note{Text: "evil"}).Error, "%q", name)
			_, err := pr.catalog.Remove(t.Context(), id, catalog.RemoveOptions{NoBackup: true})
			t.Logf("%q: remove: %v", name, err)
		}
		// The victim's own name under another id: the database says no.
		_, err = main.Exec("UPDATE tenancy_tenants SET state = 'deleted' WHERE id = 'victim'")
		require.NoError(t, err)
		_, err = main.Exec("INSERT INTO tenancy_tenants (uid, id, state, server, dbname) VALUES ('thief', 'thief', 'active', 's1', '" + victim.Database + "')")
		require.NoError(t, err)
		require.ErrorIs(t, pr.in("thief").Find(&[]Note{}).Error, tenancy.ErrWrongDatabase)
		require.ErrorIs(t, pr.in("thief").Create(&Note{Text: "evil"}).Error, tenancy.ErrWrongDatabase)
		require.Equal(t, []string{"secret"}, p.raw(t, victim))
		info, err := os.Stat(outside)
		require.NoError(t, err)
		require.Zero(t, info.Size())
		// A server that is not configured.
		_, err = main.Exec("INSERT INTO tenancy_tenants (uid, id, state, server, dbname) VALUES ('u', 'lost', 'active', 's9', 'x')")
		require.NoError(t, err)
		require.ErrorIs(t, pr.in("lost").Find(&[]Note{}).Error, catalog.ErrUnknownServer)
		_, err = pr.catalog.Remove(t.Context(), "lost", catalog.RemoveOptions{})
		require.ErrorIs(t, err, catalog.ErrUnknownServer)
	})
}
