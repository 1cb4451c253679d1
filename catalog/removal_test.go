package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gorm-tenancy/tenancy/catalog"
	"github.com/gorm-tenancy/tenancy/tenancysqlite"
)

// A Remove that is called again with KeepDatabase must not drop the database.
func TestRemoveKeepsAfterFailure(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	errBucket := errors.New("the bucket is gone")
	down := true
	pr := p.start(t, func(cfg *catalog.Config) {
		cfg.Backup = func(context.Context, catalog.Tenant, func(io.Writer) error) (string, error) {
			if down {
				return "", errBucket
			}
			return "somewhere", nil
		}
	})
	row := pr.create(t, "acme")
	pr.write(t, "acme", "precious")
	_, err := pr.catalog.Remove(t.Context(), "acme", catalog.RemoveOptions{})
	require.ErrorIs(t, err, errBucket)
	down = false
	_, err = pr.catalog.Remove(t.Context(), "acme", catalog.RemoveOptions{KeepDatabase: true})
	require.NoError(t, err)
	_, err = pr.catalog.Adopt(t.Context(), "again", catalog.AdoptOptions{
		CreateOptions: catalog.CreateOptions{Server: row.Server}, Database: row.Database})
	require.NoError(t, err)
	require.Equal(t, []string{"precious"}, pr.notes(t, "again"))
}

// A process that was taken for dead must not write into the backup that its
// successor has finished.
func TestBackupDirZombie(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hook := catalog.BackupDir(dir)
	tenant := catalog.Tenant{ID: "a", UID: "u"}
	errLost := errors.New("lost the lease")
	begun, wake, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := hook(t.Context(), tenant, func(w io.Writer) error {
			junk := bytes.Repeat([]byte("Z"), 70_000)
			_, _ = w.Write(junk)
			close(begun)
			<-wake
			_, _ = w.Write(junk) // what was in its pipe
			return errLost
		})
		ended <- err
	}()
	<-begun
	good := bytes.Repeat([]byte("G"), 300_000)
	name, err := hook(t.Context(), tenant, func(w io.Writer) error {
		_, err := w.Write(good)
		return err
	})
	close(wake)
	require.NoError(t, err)
	require.ErrorIs(t, <-ended, errLost)
	got, err := os.ReadFile(name)
	require.NoError(t, err)
	require.True(t, bytes.Equal(good, got))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// An adopted database was dropped, and somebody makes another one of that name
// before the row says so: that one was never the tenant's, and must stay.
func TestRemoveSparesNewOneOfThatName(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "sqlite")
	pr := p.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	customers := filepath.Join(p.Servers["s1"].Dir, "customers")
	require.NoError(t, tenancysqlite.Create(t.Context(), customers))
	_, err := pr.catalog.Adopt(t.Context(), "acme", catalog.AdoptOptions{
		CreateOptions: catalog.CreateOptions{Server: "s1"}, Database: "customers", Migrate: true})
	require.NoError(t, err)
	dying := p.start(t, func(cfg *catalog.Config) {
		catalog.At(cfg, func(task catalog.Task, step string, after bool) {
			if task == catalog.TaskRemove && step == "drop" && after {
				cancel() // it dies before the row says so
			}
		})
	})
	_, err = dying.catalog.Remove(ctx, "acme", catalog.RemoveOptions{})
	require.Error(t, err)
	require.Empty(t, p.there(t))
	require.NoError(t, tenancysqlite.Create(t.Context(), customers))
	r := pr.resume(t)
	require.Empty(t, r.Failed)
	require.Equal(t, []string{"s1/customers"}, p.there(t))
}

// A server that is gone for good must not keep the ids of its tenants. If it
// comes back, what is on it is found.
func TestForgetServer(t *testing.T) {
	onEngines(t, func(t *testing.T, p place) {
		p.addServer(t, "s2")
		before := p.start(t)
		row, err := before.catalog.Create(t.Context(), "acme", catalog.CreateOptions{Server: "s2"})
		require.NoError(t, err)
		before.write(t, "acme", "precious")
		var dump bytes.Buffer
		require.NoError(t, before.catalog.Dump(t.Context(), "acme", &dump))

		after := p
		after.Servers = map[string]target{"s1": p.Servers["s1"]}
		pr := after.start(t)
		audit, err := pr.catalog.Audit(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, audit.Unreachable["s2"], catalog.ErrUnknownServer)
		require.Empty(t, audit.Missing)
		_, err = pr.catalog.Remove(t.Context(), "acme", catalog.RemoveOptions{})
		require.ErrorIs(t, err, catalog.ErrUnknownServer)
		_, err = pr.catalog.Remove(t.Context(), "acme", catalog.RemoveOptions{Forget: true})
		require.NoError(t, err)
		_, err = pr.catalog.Restore(t.Context(), "acme", &dump, catalog.CreateOptions{})
		require.NoError(t, err)
		require.Equal(t, []string{"precious"}, pr.notes(t, "acme"))
		pr.inOrder(t)

		audit, err = before.catalog.Audit(t.Context())
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(audit.Orphans, func(o catalog.Orphan) bool {
			return o.Server == "s2" && o.Name == row.Database && o.Ours
		}), "%+v", audit)
	})
}

// holds reports whether the database is on the server, fenced or not.
func (p place) holds(t *testing.T, server, database string) bool {
	t.Helper()
	return slices.ContainsFunc(p.there(t), func(s string) bool {
		return strings.HasPrefix(s, server+"/") && strings.HasSuffix(s, database)
	})
}

// A main database is nobody's to adopt: a Remove would drop it.
func TestMainIsNotAdopted(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "postgres")
	pr := p.start(t)
	made := pr.create(t, "made")
	server := pr.servers["s1"]
	session, err := server.Session(t.Context(), made.Database, false)
	require.NoError(t, err)
	db, err := session.DB(t.Context())
	require.NoError(t, err)
	_, err = db.Exec("CREATE TABLE tenancy_catalog (one integer)")
	require.NoError(t, err)
	require.NoError(t, errors.Join(db.Close(), session.Close()))
	_, err = pr.catalog.Remove(t.Context(), "made", catalog.RemoveOptions{KeepDatabase: true})
	require.NoError(t, err)
	_, err = pr.catalog.Adopt(t.Context(), "main", catalog.AdoptOptions{
		CreateOptions: catalog.CreateOptions{Server: "s1"}, Database: made.Database})
	require.ErrorIs(t, err, catalog.ErrForeign)
	require.ErrorContains(t, err, "main database")
	_, err = pr.catalog.Remove(t.Context(), "main", catalog.RemoveOptions{})
	require.NoError(t, err)
	require.Len(t, p.there(t), 1, "it stays")
}
