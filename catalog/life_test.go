package catalog_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy"
	"github.com/gorm-tenancy/tenancy/catalog"
)

// A tenant's whole life, as an application sees it.
func TestLife(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		pr := p.start(t)
		ctx := t.Context()

		_, err := pr.catalog.Resolve(ctx, "acme")
		require.ErrorIs(t, err, tenancy.ErrTenantNotFound)
		require.ErrorIs(t, pr.in("acme").Find(&[]Note{}).Error, tenancy.ErrTenantNotFound)

		acme := pr.create(t, "acme")
		other := pr.create(t, "other")
		require.NotEqual(t, acme.Database, other.Database)
		pr.write(t, "acme", "of acme")
		pr.write(t, "other", "of other")
		require.Equal(t, []string{"of acme"}, pr.notes(t, "acme"))
		require.Equal(t, []string{"of other"}, pr.notes(t, "other"))
		require.Equal(t, []string{"of acme"}, p.raw(t, acme))
		pr.inOrder(t)

		// Idempotent.
		again, err := pr.catalog.Create(ctx, "acme", catalog.CreateOptions{})
		require.NoError(t, err)
		require.Equal(t, acme.UID, again.UID)

		// Suspended, twice, and back, twice.
		for range 2 {
			require.NoError(t, pr.catalog.Suspend(ctx, "acme", catalog.SuspendOptions{Reason: "unpaid"}))
			err = pr.in("acme").Find(&[]Note{}).Error
			require.ErrorIs(t, err, tenancy.ErrTenantSuspended)
			require.ErrorContains(t, err, "unpaid")
			_, err = pr.catalog.Create(ctx, "acme", catalog.CreateOptions{})
			require.ErrorIs(t, err, tenancy.ErrTenantSuspended)
		}
		pr.inOrder(t)
		require.Equal(t, []string{"of other"}, pr.notes(t, "other"))
		for range 2 {
			require.NoError(t, pr.catalog.Unsuspend(ctx, "acme"))
			require.Equal(t, []string{"of acme"}, pr.notes(t, "acme"))
		}

		// Renamed: the old id is free.
		require.NoError(t, pr.catalog.Rename(ctx, "acme", "acme-2"))
		require.ErrorIs(t, pr.in("acme").Find(&[]Note{}).Error, tenancy.ErrTenantNotFound)
		require.Equal(t, []string{"of acme"}, pr.notes(t, "acme-2"))
		require.ErrorIs(t, pr.catalog.Rename(ctx, "acme-2", "other"), catalog.ErrExists)
		require.ErrorIs(t, pr.catalog.Rename(ctx, "acme", "x"), tenancy.ErrTenantNotFound)
		require.Equal(t, []string{"of acme"}, pr.notes(t, "acme-2"), "a refused rename changes nothing")
		pr.create(t, "acme")
		require.Empty(t, pr.notes(t, "acme"))
		pr.inOrder(t)

		// Dumped while in use, and restored under another id.
		var dump bytes.Buffer
		require.NoError(t, pr.catalog.Dump(ctx, "acme-2", &dump))
		_, err = pr.catalog.Restore(ctx, "acme", bytes.NewReader(dump.Bytes()), catalog.CreateOptions{})
		require.ErrorIs(t, err, catalog.ErrExists)
		restored, err := pr.catalog.Restore(ctx, "copy", &dump, catalog.CreateOptions{})
		require.NoError(t, err)
		require.NotEqual(t, acme.UID, restored.UID)
		pr.write(t, "copy", "of copy")
		require.Equal(t, []string{"of acme", "of copy"}, pr.notes(t, "copy"))
		require.Equal(t, []string{"of acme"}, pr.notes(t, "acme-2"))

		// Removed, with a backup that can be restored.
		removed, err := pr.catalog.Remove(ctx, "copy", catalog.RemoveOptions{})
		require.NoError(t, err)
		require.Equal(t, catalog.Deleted, removed.State)
		require.NotNil(t, removed.DeletedAt)
		require.ErrorIs(t, pr.in("copy").Find(&[]Note{}).Error, tenancy.ErrTenantNotFound)
		_, err = pr.catalog.Remove(ctx, "copy", catalog.RemoveOptions{})
		require.ErrorIs(t, err, tenancy.ErrTenantNotFound)
		f, err := os.Open(removed.Backup)
		require.NoError(t, err)
		defer f.Close()
		_, err = pr.catalog.Restore(ctx, "copy", f, catalog.CreateOptions{})
		require.NoError(t, err)
		require.Equal(t, []string{"of acme", "of copy"}, pr.notes(t, "copy"))
		pr.inOrder(t)

		// Kept, and adopted again.
		gone, err := pr.catalog.Remove(ctx, "copy", catalog.RemoveOptions{KeepDatabase: true})
		require.NoError(t, err)
		require.ErrorIs(t, pr.in("copy").Find(&[]Note{}).Error, tenancy.ErrTenantNotFound)
		adopted, err := pr.catalog.Adopt(ctx, "kept", catalog.AdoptOptions{
			CreateOptions: catalog.CreateOptions{Server: "s1"}, Database: gone.Database})
		require.NoError(t, err)
		require.Equal(t, int64(1), adopted.Version)
		require.True(t, adopted.Adopted)
		require.Equal(t, []string{"of acme", "of copy"}, pr.notes(t, "kept"))
		_, err = pr.catalog.Adopt(ctx, "thief", catalog.AdoptOptions{
			CreateOptions: catalog.CreateOptions{Server: "s1"}, Database: other.Database})
		require.ErrorIs(t, err, catalog.ErrExists)
		pr.inOrder(t)

		for _, id := range []string{"acme", "acme-2", "other", "kept"} {
			_, err := pr.catalog.Remove(ctx, id, catalog.RemoveOptions{})
			require.NoError(t, err)
		}
		pr.inOrder(t)
		require.Empty(t, p.there(t))
	})
}

// raw reads a tenant's notes around everything.
func (p place) raw(t *testing.T, row catalog.Tenant) (all []string) {
	t.Helper()
	var db *sql.DB
	var err error
	s := p.Servers[row.Server]
	if s.Dir != "" {
		db, err = sql.Open("sqlite", "file:"+s.Dir+"/"+row.Database+"?mode=ro&_pragma=busy_timeout(5000)")
	} else {
		db, err = sql.Open("pgx", dsnOf(t, s.Admin, row.Database))
	}
	require.NoError(t, err)
	defer db.Close()
	rows, err := db.Query("SELECT text FROM notes ORDER BY id")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var text string
		require.NoError(t, rows.Scan(&text))
		all = append(all, text)
	}
	require.NoError(t, rows.Err())
	return all
}

// Many that create one tenant get the same one.
func TestCreateTogether(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Seeds = true
		a, b := p.start(t), p.start(t)
		const creators = 16
		uids := make([]string, creators)
		errs := make([]error, creators)
		var wg sync.WaitGroup
		for i := range creators {
			pr := a
			if i%2 == 1 {
				pr = b
			}
			wg.Go(func() {
				created, err := pr.catalog.Create(t.Context(), "one", catalog.CreateOptions{})
				uids[i], errs[i] = created.UID, err
			})
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		for _, uid := range uids {
			require.Equal(t, uids[0], uid)
		}
		require.Equal(t, []string{"seed of one"}, a.notes(t, "one"))
		require.Equal(t, []string{"seed of one"}, b.notes(t, "one"))
		require.Len(t, p.there(t), 1)
		a.inOrder(t)
	})
}

// Ready databases are claimed by one statement, each by one tenant.
func TestReady(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.Ready = 3
		pr := p.start(t)
		ctx := t.Context()
		require.NoError(t, pr.catalog.FillReady(ctx))
		require.NoError(t, pr.catalog.FillReady(ctx), "full")
		ready := p.there(t)
		require.Len(t, ready, 3)
		pr.inOrder(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		databases := map[string]string{}
		for i := range 3 {
			wg.Go(func() {
				id := fmt.Sprintf("t%d", i)
				created, err := pr.catalog.Create(ctx, id, catalog.CreateOptions{Labels: map[string]string{"plan": "pro"}})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				databases[created.Database] = id
			})
		}
		wg.Wait()
		require.Len(t, databases, 3)
		require.Equal(t, ready, p.there(t), "no other database was made")
		for i := range 3 {
			id := fmt.Sprintf("t%d", i)
			pr.write(t, id, id)
			require.Equal(t, []string{id}, pr.notes(t, id))
		}
		require.NoError(t, pr.catalog.FillReady(ctx))
		require.Len(t, p.there(t), 6)

		// After a release, those that wait are brought forward.
		p.Version = 2
		pr2 := p.start(t)
		require.NoError(t, pr2.catalog.FillReady(ctx))
		require.Len(t, p.there(t), 6)
		claimed := pr2.create(t, "new")
		require.Equal(t, int64(2), claimed.Version)
		require.NoError(t, pr2.in("new").Exec("INSERT INTO notes (text, color) VALUES ('a', 'red')").Error)

		// With a seed, the claim is not visible before it is done.
		p.Seeds = true
		pr3 := p.start(t)
		pr3.create(t, "seeded")
		require.Equal(t, []string{"seed of seeded"}, pr3.notes(t, "seeded"))
	})
}

// A tenant moves to another server while it is in use.
func TestMove(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, engine)
			p.addServer(t, "s2")
			pr := p.start(t)
			ctx := t.Context()
			acme, err := pr.catalog.Create(ctx, "acme", catalog.CreateOptions{Server: "s1"})
			require.NoError(t, err)
			pr.write(t, "acme", "before")
			require.ErrorIs(t, pr.catalog.Move(ctx, "acme", "s9"), catalog.ErrUnknownServer)
			require.NoError(t, pr.catalog.Move(ctx, "acme", "s1"), "it is there")
			require.NoError(t, pr.catalog.Move(ctx, "acme", "s2"))
			pr.write(t, "acme", "after")
			require.Equal(t, []string{"before", "after"}, pr.notes(t, "acme"))
			moved, err := pr.catalog.Get(ctx, "acme")
			require.NoError(t, err)
			require.Equal(t, "s2", moved.Server)
			require.Equal(t, acme.UID, moved.UID)
			require.Equal(t, []string{"before", "after"}, p.raw(t, moved))
			pr.inOrder(t) // the old database is gone
			require.NoError(t, pr.catalog.Suspend(ctx, "acme", catalog.SuspendOptions{}))
			require.NoError(t, pr.catalog.Move(ctx, "acme", "s1"))
			require.ErrorIs(t, pr.in("acme").Find(&[]Note{}).Error, tenancy.ErrTenantSuspended)
			require.NoError(t, pr.catalog.Unsuspend(ctx, "acme"))
			require.Equal(t, []string{"before", "after"}, pr.notes(t, "acme"))
			pr.inOrder(t)
		})
	}
}
